/* Polls the statistics while the page is visible, and renders them. */

(function () {
    "use strict";

    const WIDTH = 600;
    const HEIGHT = 160;
    const LEFT = 44;
    const BOTTOM = 18;
    const SVG = "http://www.w3.org/2000/svg";

    const rate = (value) => value === null ? "—" : (100 * value).toFixed(1) + " %";
    const seconds = (value) => value === null ? "—" : value < 1 ? (1000 * value).toFixed(0) + " ms" : value.toFixed(2) + " s";
    const perSecond = (value) => value === null ? "—" : value.toFixed(value < 10 ? 2 : 0);
    const whole = (value) => value === null || value === undefined ? "—" : value.toLocaleString();

    // A chart is sparse if points without tasks have no value: its lines connect the points around them.
    const CHARTS = [
        {id: "chart-throughput", format: perSecond, lines: [
            {name: "succeeded", label: "succeeded", colour: "colour-good", each: "step"},
            {name: "failed", label: "failed", colour: "colour-bad", each: "step"}]},
        {id: "chart-rates", format: rate, top: 1, sparse: true, lines: [
            {name: "success_rate", label: "success", colour: "colour-good"},
            {name: "failure_rate", label: "failure", colour: "colour-bad"}]},
        {id: "chart-runtime", format: seconds, sparse: true, lines: [
            {name: "average_runtime", label: "average", colour: "colour-one"},
            {name: "p95_runtime", label: "p95", colour: "colour-two"}]},
        {id: "chart-load", format: whole, lines: [
            {name: "active", label: "active", colour: "colour-one"},
            {name: "queued", label: "queued", colour: "colour-two"}]},
    ];
    const COLUMNS = [["active", whole], ["succeeded", whole], ["failed", whole], ["retried", whole],
        ["throughput", perSecond], ["success_rate", rate], ["average_runtime", seconds], ["p95_runtime", seconds]];

    const dashboard = document.getElementById("dashboard");
    const choice = {minutes: 5, task: "", worker: ""};
    let timer;
    let requests = 0;

    function make(parent, name, attributes, text) {
        const element = document.createElementNS(name === "span" ? "http://www.w3.org/1999/xhtml" : SVG, name);
        Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
        element.textContent = text || "";
        return parent.appendChild(element);
    }

    function clock(time) {
        return new Date(1000 * time).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
    }

    // 1, 2 or 5 times a power of ten, so that the middle of the axis is also a round number
    function roundUp(value) {
        const power = 10 ** Math.floor(Math.log10(value));
        return [1, 2, 5, 10].find((factor) => factor * power >= value) * power;
    }

    function path(values, sparse, x, y) {
        const points = values.map((value, index) => ({value, index}));
        const drawn = sparse ? points.filter(({value}) => value !== null) : points;
        return drawn.map(({value, index}, position) => {
            if (value === null) {
                return "";
            }
            const first = (drawn[position - 1]?.value ?? null) === null;
            const last = (drawn[position + 1]?.value ?? null) === null;
            // a point without neighbours is drawn as a short line
            return (first ? "M" : "L") + x(index).toFixed(1) + "," + y(value).toFixed(1) + (first && last ? "h2" : "");
        }).join("");
    }

    function draw(chart, report) {
        const figure = document.getElementById(chart.id);
        const lines = chart.lines.map((line) => ({...line, values: report.series[line.name].map(
            (value) => line.each === "step" ? value / report.step : value)}));
        const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
        const top = chart.top || roundUp(Math.max(...known, 0) || 1);
        const count = report.series.time.length;
        const x = (index) => LEFT + (WIDTH - LEFT) * index / Math.max(count - 1, 1);
        const y = (value) => (HEIGHT - BOTTOM) * (1 - value / top) + 6;

        figure.querySelectorAll("svg, .dashboard-legend").forEach((old) => old.remove());
        const svg = make(figure, "svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", role: "img"});
        [0, 0.5, 1].forEach((part) => {
            make(svg, "line", {class: "grid", x1: LEFT, x2: WIDTH, y1: y(part * top), y2: y(part * top)});
            make(svg, "text", {x: LEFT - 6, y: y(part * top) + 4, "text-anchor": "end"}, chart.format(part * top));
        });
        [0, Math.floor(count / 2), count - 1].forEach((index) => {
            const anchor = index === 0 ? "start" : index === count - 1 ? "end" : "middle";
            make(svg, "text", {x: x(index), y: HEIGHT + 6, "text-anchor": anchor}, clock(report.series.time[index]));
        });
        lines.forEach((line) => make(svg, "path", {class: "line " + line.colour, d: path(line.values, chart.sparse, x, y)}));

        const legend = make(figure.querySelector("figcaption"), "span", {class: "dashboard-legend"});
        function label(index) {
            legend.replaceChildren();
            lines.forEach((line) => {
                const value = line.values[index];
                make(legend, "span", {class: line.colour}, line.label + " " + chart.format(value));
            });
        }
        label(count - 1);
        svg.addEventListener("pointermove", (event) => {
            const box = svg.getBoundingClientRect();
            const part = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT);
            label(Math.min(count - 1, Math.max(0, Math.round(part * (count - 1)))));
        });
        svg.addEventListener("pointerleave", () => label(count - 1));
    }

    function row(texts, className) {
        const line = document.createElement("tr");
        line.className = className || "";
        texts.forEach((text) => {
            line.insertCell().textContent = text;
        });
        return line;
    }

    function fill(kind, rows) {
        document.querySelector(`#table-${kind} tbody`).replaceChildren(...rows);
    }

    function statistics(rows) {
        return Object.entries(rows).map(([name, data]) => {
            const offline = data.online === false;
            const texts = COLUMNS.map(([column, format]) => format(data[column]));
            return row([offline ? name + " (offline)" : name, ...texts], offline ? "dashboard-offline" : "");
        });
    }

    function showQueues(report) {
        const unconsumed = Object.keys(report.queues).filter((name) => report.consumers[name] === 0);
        fill("queues", Object.entries(report.queues).map(([name, ready]) => {
            const marked = unconsumed.includes(name);
            const line = row([name, whole(ready), marked ? "no consumers" : whole(report.consumers[name])]);
            line.cells[0].classList.toggle("dashboard-danger", marked);
            line.cells[2].classList.toggle("dashboard-danger", marked);
            return line;
        }));
        const warning = document.getElementById("dashboard-warning");
        warning.hidden = unconsumed.length === 0;
        warning.textContent = "No consumers: " + unconsumed.join(", ") + " (start a worker that consumes "
            + (unconsumed.length > 1 ? "these queues" : "this queue") + ")";
    }

    function addOptions(kind, names) {
        const select = document.getElementById("choice-" + kind);
        const present = [...select.options].map((option) => option.value);
        names.filter((name) => !present.includes(name)).forEach((name) => select.add(new Option(name, name)));
    }

    function show(report) {
        [["throughput", (value) => perSecond(value) + " /s"], ["success_rate", rate], ["failure_rate", rate],
            ["average_runtime", seconds], ["p95_runtime", seconds], ["active", whole], ["queued", whole],
            ["dead_letters", whole]].forEach(([name, format]) => {
            document.getElementById("metric-" + name).textContent = format(report.total[name]);
        });
        CHARTS.forEach((chart) => draw(chart, report));
        showQueues(report);
        fill("tasks", statistics(report.tasks));
        fill("workers", statistics(report.workers));
        addOptions("task", Object.keys(report.tasks));
        addOptions("worker", Object.keys(report.workers));
    }

    function showStatus(text, kind) {
        document.getElementById("dashboard-dot").className = "status-dot status-dot-" + kind;
        document.getElementById("dashboard-status").textContent = text;
    }

    async function refresh() {
        clearTimeout(timer);
        requests += 1;
        const current = requests;
        let pause = 5;
        try {
            const query = new URLSearchParams(Object.entries(choice).filter(([, value]) => value !== ""));
            const response = await fetch(dashboard.dataset.url + "?" + query, {redirect: "manual"});
            if (response.type === "opaqueredirect" || response.status === 401) {
                showStatus("Session expired (reload this page to log in)", "error");
                return;
            }
            if (!response.ok) {
                throw new Error(await response.text());
            }
            const report = await response.json();
            if (current !== requests) {
                return; // superseded by a newer request
            }
            show(report);
            showStatus("Updated " + new Date().toLocaleTimeString(), "live");
            pause = Math.min(60, report.step / 2);
        } catch (error) {
            showStatus("Update failed: " + error.message, "error");
        }
        if (!document.hidden && current === requests) {
            timer = setTimeout(refresh, 1000 * pause);
        }
    }

    document.querySelectorAll("[data-minutes]").forEach((button) => {
        button.classList.toggle("active", Number(button.dataset.minutes) === choice.minutes);
        button.addEventListener("click", () => {
            choice.minutes = Number(button.dataset.minutes);
            document.querySelectorAll("[data-minutes]").forEach((other) => other.classList.toggle("active", other === button));
            refresh();
        });
    });
    ["task", "worker"].forEach((kind) => {
        document.getElementById("choice-" + kind).addEventListener("change", (event) => {
            choice[kind] = event.target.value;
            refresh();
        });
    });
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden) {
            refresh();
        }
    });
    refresh();
}());
