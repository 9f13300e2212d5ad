"""Requests that read: one run, the liveness probe, and the history at size."""

from functools import partial

from benchmarks.bench import OURS, Bench, Load
from benchmarks.measure import Result, interleaved

RARE = 1000  # one run of so many has the rare task

FILTERS = {
    "no filter": "",
    "common state": "state=SUCCESS",
    "rare state": "state=REVOKED",
    "rare task": "name=rare",
    "unknown task": "name=unknown",
    "unknown worker": "worker=unknown",
    "rare task and rare state": "name=rare&state=REVOKED",
    "recent": "since=2026-01-01T00:00:00Z",
}


def task(bench: Bench) -> list[Result]:
    """Compare the latency of `GET /tasks/{id}` with that of one pooled SELECT in the same process."""
    bench.start()
    run_id = bench.enqueue("add", x=1, y=2)
    bench.wait_for_end(run_id)

    def p50(path: str) -> float:
        return bench.load(f"{OURS}{path}", seconds=bench.seconds(2), connections=1, method="GET").p50

    sides = (partial(p50, f"/tasks/{run_id}"), partial(p50, "/benchmark/select"))
    for side in sides:
        side()
    mine, select = interleaved(bench.rounds, *sides)
    bench.clear()
    what = "p50 of `GET /tasks/{id}`, one connection"
    return [Result("read/task/p50", what, "ms", mine, "one pooled SELECT", select, "≤ 3")]


def live(bench: Bench) -> list[Result]:
    """Compare `GET /health/live` with an empty endpoint of FastAPI, without an access log."""
    bench.start("empty")

    def rate(url: str) -> float:
        return bench.load(url, seconds=bench.seconds(3), method="GET").rate

    sides = (partial(rate, f"{OURS}/health/live"), partial(rate, "http://empty:8000/"))
    for side in sides:
        side()
    mine, empty = interleaved(bench.rounds, *sides)
    what = "`GET /health/live`, 32 connections"
    return [Result("read/live", what, "/s", mine, "an empty endpoint", empty, "≥ 0.9")]


def history(bench: Bench) -> list[Result]:
    """Compare `GET /tasks/history` over 1,000,000 rows with the same over 1,000, for each filter.

    The figures are those of the filter with the highest ratio; the notes have the ratio of each. Two tables take turns
    under the name of the history.
    """
    bench.start()
    bench.clear()
    fill(bench, 1000)
    bench.database.execute("ALTER TABLE task_runs RENAME TO task_runs_few")
    bench.database.execute("CREATE TABLE task_runs (LIKE task_runs_few INCLUDING ALL)")
    (user,) = bench.row("SELECT tableowner FROM pg_tables WHERE tablename = 'task_runs_few'")
    bench.database.execute(f'ALTER TABLE task_runs OWNER TO "{user}"'.encode())
    rows = bench.number(1_000_000)
    fill(bench, rows)
    results = {}
    try:
        for name, query in list(FILTERS.items())[: 2 if bench.quick else None]:
            sides = (partial(page, bench, query, few=few) for few in (False, True))
            many, few = interleaved(bench.rounds, *sides)
            results[name] = Result(
                "read/history/p99",
                f"p99 of `GET /tasks/history`, {rows:,} rows, {name}",
                "ms",
                [each.p99 for each in many],
                "1,000 rows",
                [each.p99 for each in few],
                "≤ 1.5",
            )
    finally:
        bench.database.execute("DROP TABLE task_runs")
        bench.database.execute("ALTER TABLE task_runs_few RENAME TO task_runs")
        bench.clear()
    worst = max(results.values(), key=lambda result: result.ratio or 0)
    worst.notes.update({name: f"{result.ratio:.2f}" for name, result in results.items()})
    return [worst]


def page(bench: Bench, query: str, *, few: bool) -> Load:
    """Return the load of one connection that reads the first page, over few rows or over many."""
    swap = "ALTER TABLE task_runs RENAME TO task_runs_many; ALTER TABLE task_runs_few RENAME TO task_runs"
    back = "ALTER TABLE task_runs RENAME TO task_runs_few; ALTER TABLE task_runs_many RENAME TO task_runs"
    if few:
        bench.database.execute(f"BEGIN; {swap}; COMMIT".encode())
    try:
        return bench.load(f"{OURS}/tasks/history?{query}", seconds=1, connections=1, method="GET")
    finally:
        if few:
            bench.database.execute(f"BEGIN; {back}; COMMIT".encode())


def fill(bench: Bench, count: int) -> None:
    """Insert ended runs, evenly over the last year: 90 % SUCCESS, 9 % FAILURE, 1 % REVOKED, few of one task."""
    states = "CASE WHEN n % 100 < 90 THEN 'SUCCESS' WHEN n % 100 < 99 THEN 'FAILURE' ELSE 'REVOKED' END"
    bench.database.execute(
        f"""
        INSERT INTO task_runs (id, name, queue, arguments, state, result, attempts, worker, publish_count,
                               accepted_at, publish_at, published_at, started_at, ended_at)
        SELECT gen_random_uuid(), CASE WHEN n % {RARE} = 7 THEN 'rare' ELSE 'add' END, 'celery', '{{"x": 1, "y": 2}}',
               {states}, '3.0', 1, 'worker@1', 1, at, at, at, at, at
        FROM generate_series(1, {count}) AS n, LATERAL (SELECT now() - n * interval '1 year' / {count}) AS times (at)
        """.encode()
    )
    bench.database.execute("VACUUM ANALYZE task_runs")
