/* Asks for the figures as long as the page can be seen, and draws them. */

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

    const CHARTS = [
        {id: "chart-throughput", format: perSecond, lines: [
            {name: "succeeded", label: "succeeded", colour: "colour-good", each: "step"},
            {name: "failed", label: "failed", colour: "colour-bad", each: "step"}]},
        {id: "chart-rates", format: rate, top: 1, lines: [
            {name: "success_rate", label: "success", colour: "colour-good"},
            {name: "failure_rate", label: "failure", colour: "colour-bad"}]},
        {id: "chart-runtime", format: seconds, lines: [
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
    let asked = 0;

    function make(parent, name, attributes, text) {
        const element = document.createElementNS(name === "span" ? "http://www.w3.org/1999/xhtml" : SVG, name);
        Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
        element.textContent = text || "";
        return parent.appendChild(element);
    }

    function clock(time) {
        return new Date(1000 * time).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
    }

    // 1, 2 or 5 times a power of ten, so that the middle of the axis is a round number, too
    function roundUp(value) {
        const power = 10 ** Math.floor(Math.log10(value));
        return [1, 2, 5, 10].find((factor) => factor * power >= value) * power;
    }

    function path(values, x, y) {
        let pen = "M";
        return values.map((value, index) => {
            if (value === null) {
                pen = "M";
                return "";
            }
            const piece = pen + x(index).toFixed(1) + "," + y(value).toFixed(1);
            // a point without neighbours is drawn as a short line
            const alone = pen === "M" && (values[index + 1] ?? null) === null;
            pen = "L";
            return alone ? piece + "h2" : piece;
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
        lines.forEach((line) => make(svg, "path", {class: "line " + line.colour, d: path(line.values, x, y)}));

        const legend = make(figure.querySelector("figcaption"), "span", {class: "dashboard-legend"});
        function tell(index) {
            legend.replaceChildren();
            lines.forEach((line) => {
                const value = line.values[index];
                make(legend, "span", {class: line.colour}, line.label + " " + chart.format(value));
            });
        }
        tell(count - 1);
        svg.addEventListener("pointermove", (event) => {
            const box = svg.getBoundingClientRect();
            const part = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT);
            tell(Math.min(count - 1, Math.max(0, Math.round(part * (count - 1)))));
        });
        svg.addEventListener("pointerleave", () => tell(count - 1));
    }

    function fill(kind, rows) {
        const body = document.querySelector(`#table-${kind} tbody`);
        body.replaceChildren(...Object.entries(rows).map(([name, row]) => {
            const line = document.createElement("tr");
            [name, ...COLUMNS.map(([column, format]) => format(row[column]))].forEach((text) => {
                line.insertCell().textContent = text;
            });
            return line;
        }));
    }

    function offer(kind, names) {
        const select = document.getElementById("choice-" + kind);
        const offered = [...select.options].map((option) => option.value);
        names.filter((name) => !offered.includes(name)).forEach((name) => select.add(new Option(name, name)));
    }

    function show(report) {
        const figures = {...report.total, queued: report.queues.celery, dead_letters: report.queues["dead-letters"]};
        [["throughput", (value) => perSecond(value) + " /s"], ["success_rate", rate], ["failure_rate", rate],
            ["average_runtime", seconds], ["p95_runtime", seconds], ["active", whole], ["queued", whole],
            ["dead_letters", whole]].forEach(([name, format]) => {
            document.getElementById("figure-" + name).textContent = format(figures[name]);
        });
        CHARTS.forEach((chart) => draw(chart, report));
        fill("tasks", report.tasks);
        fill("workers", report.workers);
        offer("task", Object.keys(report.tasks));
        offer("worker", Object.keys(report.workers));
    }

    function say(text, kind) {
        document.getElementById("dashboard-dot").className = "status-dot status-dot-" + kind;
        document.getElementById("dashboard-status").textContent = text;
    }

    async function refresh() {
        clearTimeout(timer);
        asked += 1;
        const mine = asked;
        let pause = 5;
        try {
            const query = new URLSearchParams(Object.entries(choice).filter(([, value]) => value !== ""));
            const answer = await fetch(dashboard.dataset.figures + "?" + query, {redirect: "manual"});
            if (answer.type === "opaqueredirect" || answer.status === 401) {
                say("Log in again: load this page anew", "error");
                return;
            }
            if (!answer.ok) {
                throw new Error(await answer.text());
            }
            const report = await answer.json();
            if (mine !== asked) {
                return; // another choice was made meanwhile
            }
            show(report);
            say("Updated " + new Date().toLocaleTimeString(), "live");
            pause = Math.min(60, report.step / 2);
        } catch (error) {
            say("No answer: " + error.message, "error");
        }
        if (!document.hidden && mine === asked) {
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
