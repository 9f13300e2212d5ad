"""Executed tasks per second, and the latency until they start."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from benchmarks import accept
from benchmarks.bench import OURS, Bench
from benchmarks.measure import Result, interleaved, number

CLIENTS = 16
"""Connections of the load at half rate."""

COUNTS = (1, 2, 4)
"""Numbers of API processes and of workers in the curve."""


def own_worker(bench: Bench) -> float:
    """Return the no-op runs that the project's worker ends per second, from the first end to the last.

    The messages are in the queue before it starts.
    """
    bench.compose("stop", "worker")
    bench.clear()
    bench.load(f"{OURS}/tasks/benchmark_noop", seconds=bench.seconds(2))
    bench.wait_for("SELECT count(*) = 0 FROM task_runs WHERE outbox_action IS NOT NULL", 60)
    bench.compose("start", "worker")
    bench.wait_for("SELECT count(*) = 0 FROM task_runs WHERE ended_at IS NULL", 60)
    (rate,) = bench.row(
        "SELECT ((count(*) - 1) / extract(epoch FROM max(ended_at) - min(ended_at)))::float8 FROM task_runs"
    )
    bench.clear()
    return float(rate)


def marked_worker(bench: Bench, name: str, fill: Callable[[int], None]) -> float:
    """Return the no-op tasks that a reference's worker executes per second, by the marks of the first and the last.

    The messages are in the queue before it starts.
    """
    count = bench.number(5000)
    bench.compose("--profile", "*", "stop", "--timeout", "2", name)
    bench.reference.execute("TRUNCATE marks")
    fill(count)
    bench.compose("up", "--detach", "--no-deps", name)
    bench.wait_for("SELECT count(*) = 2 FROM marks", 90, bench.reference)
    (rate,) = bench.reference_row(
        "SELECT (%(number)s / extract(epoch FROM max(at) - min(at)))::float8 FROM marks", number=count
    )
    bench.compose("stop", "--timeout", "2", name)
    return float(rate)


def worker(bench: Bench) -> list[Result]:
    """Compare the project's worker, with history and events, with one of bare Celery with events and without results.

    Both have two processes. Flower is stopped, and the API idle.
    """
    bench.start("empty", "bare-worker")
    bench.compose("stop", "flower")

    def fill(count: int) -> None:
        bench.compose("exec", "-T", "empty", "python", "bare.py", str(count))

    sides = (partial(own_worker, bench), partial(marked_worker, bench, "bare-worker", fill))
    mine, bare = interleaved(bench.rounds, *sides)
    return [
        Result(
            "worker",
            "a worker alone, no-op tasks, history and events on",
            "/s",
            mine,
            "bare Celery, `-E`, no results",
            bare,
            "≥ 0.6",
        )
    ]


def latency(bench: Bench) -> list[Result]:
    """Measure the time from the acceptance of a run to the first line of its function, at half load.

    Half load is half of the rate at which runs finish while requests arrive as fast as they are answered. Requests
    arrive at random. The end of the time is the one that the function returns. Its start is `accepted_at`, the start of
    the transaction that accepts the run: the response with 202 is sent later, so the time after it is shorter.
    """
    bench.start()
    full = [accept.ours(bench).finished for _ in range(2)][-1]
    pause = 1000 * bench.connections(CLIENTS) / (full / 2)  # milliseconds

    def percentiles() -> tuple[float, float, float]:
        load = bench.load(f"{OURS}/tasks/benchmark_noop", seconds=bench.seconds(6), connections=CLIENTS, pause=pause)
        bench.wait_for("SELECT count(*) = 0 FROM task_runs WHERE ended_at IS NULL", 60)
        p50, p99 = bench.row(
            """
            SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY waited),
                   percentile_cont(0.99) WITHIN GROUP (ORDER BY waited)
            FROM (SELECT 1000 * ((result #>> '{}')::float8 - extract(epoch FROM accepted_at)::float8) AS waited
                  FROM task_runs) AS runs
            """
        )
        bench.clear()
        return p50, p99, load.rate

    (measured,) = interleaved(bench.rounds, percentiles)
    medians, tails, rates = zip(*measured, strict=True)
    what = "from acceptance to the function's first line, half load"
    notes = {"accepted/s": number(median(rates))}
    return [
        Result("latency/p50", f"p50 {what}", "ms", medians, reach="≤ 15 ms", notes=notes),
        Result("latency/p99", f"p99 {what}", "ms", tails, reach="≤ 60 ms", notes=notes),
    ]


def curve(bench: Bench) -> list[Result]:
    """Measure how the throughput rises with processes of the API and with workers of two processes each.

    The notes have the rate of accepting, and the share of a core that each service used.
    """
    bench.start()
    counts = COUNTS[1:2] if bench.quick else COUNTS
    results = []
    for processes in counts:
        bench.compose("up", "--detach", "--wait", "--no-deps", "backend", BACKEND_PROCESSES=str(processes))
        for workers in counts:
            bench.compose("up", "--detach", "--wait", "--no-deps", "--scale", f"worker={workers}", "worker")
            brief = partial(accept.ours, bench, seconds=2, wait=2)
            brief()
            before, began = processor_seconds(bench, workers), time.monotonic()
            (rounds,) = interleaved(bench.rounds, brief)
            elapsed = time.monotonic() - began
            after = processor_seconds(bench, workers)
            notes = {"accepted/s": number(median(each.load.rate for each in rounds))}
            notes |= {f"{name}": f"{(after[name] - before[name]) / elapsed:.2f}" for name in before}
            what = f"finished; API processes: {processes}, workers: {workers}"
            results.append(
                Result(f"curve/{processes}x{workers}", what, "/s", [each.finished for each in rounds], notes=notes)
            )
    bench.compose("up", "--detach", "--wait", "--no-deps", "--scale", "worker=1", "worker")
    bench.compose("up", "--detach", "--wait", "--no-deps", "backend")
    return results


def processor_seconds(bench: Bench, workers: int) -> dict[str, float]:
    """Return the processor time that each service of the project has used."""
    used = {name: bench.processor_seconds(name) for name in ("backend", "db", "rabbitmq", "flower")}
    used["worker"] = sum(bench.processor_seconds("worker", index) for index in range(1, workers + 1))
    return used


def others(bench: Bench) -> list[Result]:
    """Compare the worker with those of two other job systems, which keep the results or the jobs of no-op tasks."""
    bench.compose("build", "dramatiq-worker", "procrastinate-worker")
    bench.start("redis")
    bench.compose("stop", "flower")
    bench.compose(
        "run", "--rm", "procrastinate-worker", "procrastinate", "--app=procrastinate_noop.app", "schema", "--apply"
    )

    def fill(name: str, count: int) -> None:
        bench.compose("run", "--rm", f"{name}-worker", "python", f"{name}_noop.py", str(count))

    names = {"dramatiq": "Dramatiq, results in Redis", "procrastinate": "Procrastinate, jobs kept"}
    sides = (partial(marked_worker, bench, f"{name}-worker", partial(fill, name)) for name in names)
    mine, *theirs = interleaved(bench.rounds, partial(own_worker, bench), *sides)
    return [
        Result(f"others/{name}", "a worker alone, no-op tasks", "/s", mine, against, rates)
        for (name, against), rates in zip(names.items(), theirs, strict=True)
    ]
