"""Accepted tasks per second, and the latency of their requests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import OURS, Bench, Load
from benchmarks.measure import Result, interleaved, number

ADD = "/tasks/add?x=1&y=2"


@dataclass(frozen=True)
class Pipeline:
    """Figures of one load: of its requests, and the runs that ended per second."""

    load: Load
    finished: float


def ours(bench: Bench, *, seconds: int = 3, wait: int = 6) -> Pipeline:
    """Load the project for `seconds`, and wait for the end of the runs: the row of each accepted task is committed."""
    load = bench.load(f"{OURS}{ADD}", seconds=bench.seconds(seconds))
    bench.wait_until_ended(load.count, bench.seconds(wait))
    count, end = bench.row("SELECT count(ended_at), extract(epoch FROM max(ended_at))::float8 FROM task_runs")
    bench.clear()
    return Pipeline(load, count / (end - load.started))


def plain(bench: Bench, service: str, *, seconds: int = 3, wait: int = 6) -> Pipeline:
    """Load a reference for `seconds`, and wait for the results: a message of each accepted task is sent."""
    load = bench.load(f"http://{service}:8000{ADD}", seconds=bench.seconds(seconds))
    bench.wait_until_stored(load.count, bench.seconds(wait))
    query = "SELECT count(*), extract(epoch FROM max(date_done AT TIME ZONE 'UTC'))::float8 FROM celery_taskmeta"
    count, end = bench.reference_row(query)
    bench.clear_reference()
    return Pipeline(load, count / (end - load.started))


def accept(bench: Bench) -> list[Result]:
    """Compare the project with both plain references: accepted per second, p99, and ended per second.

    32 connections, workers of two processes on both sides. The rate of finishing is the number of rows with an end,
    divided by the time from the first request to the last end, or to the end of a limited wait.
    """
    bench.start("plain-def", "plain-async", "plain-worker")
    names = ("plain-def", "plain-async")
    sides = (partial(ours, bench), *(partial(plain, bench, name) for name in names))
    for side in () if bench.quick else sides:  # connections, caches, tables
        side()
    mine, by_def, by_async = interleaved(bench.rounds, *sides)
    reach = {"plain-def": "≥ 3", "plain-async": "≥ 1.5"}
    against = {"plain-def": "`def` + `delay()`", "plain-async": "`async def` + `delay()`"}
    requests = "`POST /tasks/add`, 32 connections, worker running"
    results = []
    for name, theirs in zip(names, (by_def, by_async), strict=True):
        both = (mine, against[name], theirs)
        results += [
            compared(f"accept/{name}", requests, "/s", lambda each: each.load.rate, *both, reach[name]),
            compared(f"accept/{name}/p99", "its p99", "ms", lambda each: each.load.p99, *both, "< 1"),
        ]
    what = "accepted and finished during and after that load"
    finished = compared("finish", what, "/s", lambda each: each.finished, mine, against["plain-def"], by_def, "≥ 3")
    return [*results, finished]


def compared(
    name: str,
    what: str,
    unit: str,
    figure: Callable[[Pipeline], float],
    mine: list[Pipeline],
    against: str,
    theirs: list[Pipeline],
    reach: str,
) -> Result:
    """Return one figure of the loads of both sides."""
    return Result(name, what, unit, [figure(each) for each in mine], against, [figure(each) for each in theirs], reach)


def frozen(bench: Bench) -> list[Result]:
    """Compare the p99 of accepting while the broker is frozen with that while it is healthy."""
    bench.start()
    seconds = bench.seconds(3)

    def healthy() -> Load:
        load = bench.load(f"{OURS}{ADD}", seconds=seconds)
        bench.clear()
        return load

    def without_broker() -> Load:
        bench.compose("pause", "rabbitmq")
        try:
            load = bench.load(f"{OURS}{ADD}", seconds=seconds)
            bench.database.execute("TRUNCATE task_runs")
        finally:
            bench.compose("unpause", "rabbitmq")
        bench.clear()
        return load

    healthy()
    away, well = interleaved(bench.rounds, without_broker, healthy)
    return [
        Result(
            "accept/frozen-broker/p99",
            "p99 of `POST /tasks/add` while the broker is frozen",
            "ms",
            [each.p99 for each in away],
            "healthy broker",
            [each.p99 for each in well],
            "≤ 1.2",
            {"accepted/s": f"{number(max(each.rate for each in away))} at most"},
        )
    ]


def enqueue(bench: Bench) -> list[Result]:
    """Compare an endpoint that inserts a row and enqueues a run with one that inserts the row only.

    The worker is stopped, so that the cost of executing the runs is not counted. The relay publishes them.
    """
    bench.start()
    bench.compose("stop", "worker")

    def rate(path: str) -> float:
        load = bench.load(f"{OURS}/benchmark/{path}", seconds=bench.seconds(3))
        bench.clear()
        bench.database.execute("TRUNCATE benchmark_orders")
        return load.rate

    paths = ("insert-and-enqueue", "insert")
    for path in paths:
        rate(path)
    both, insert = interleaved(bench.rounds, *(partial(rate, path) for path in paths))
    return [
        Result(
            "enqueue",
            "`Transaction` with one insert and `enqueue`",
            "/s",
            both,
            "the insert alone",
            insert,
            "≥ 0.8",
        )
    ]
