"""Many requests that wait for the end of a run, or arrive at the same time."""

import contextlib
import resource
import selectors
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator

import httpx2

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load

WAITERS = 1500
PAUSE = 0.01
"""Tolerance in seconds: all services share two cores, which delays a few requests regardless of the API."""


@contextlib.contextmanager
def requests(count: int, path: str) -> Iterator[list[socket.socket]]:
    """Send requests at the same time, each on its own connection, without reading the responses."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"POST {path} HTTP/1.1\r\nHost: localhost:8060\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as cleanup:
        sockets = [
            cleanup.enter_context(socket.create_connection(("localhost", 8060), timeout=70)) for _ in range(count)
        ]
        for each in sockets:
            each.sendall(request.encode())
        yield sockets


def responses(sockets: list[socket.socket]) -> Counter[str]:
    """Read the responses; return their status codes."""
    return Counter(each.makefile("rb").read()[9:12].decode() for each in sockets)


def responded(sockets: list[socket.socket]) -> int:
    """Return the number of requests with a response or a closed connection."""
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        return len(selector.select(0))


def p99(http: httpx2.Client) -> float:
    """Return the 99th percentile of the latency of 300 requests, the median of three rounds."""
    rounds = []
    for _ in range(3):
        seconds = []
        for _ in range(300):
            began = time.monotonic()
            response = http.post("/tasks/add", params={"x": 1, "y": 1})
            seconds.append(time.monotonic() - began)
            assert response.status_code == 202, response.text
        rounds.append(statistics.quantiles(seconds, n=100)[98])
    return statistics.median(rounds)


def polls(ledger: Ledger) -> bool:
    """Return whether the API polls for ended runs within 2 s. A table lock makes its statement visible."""
    waiting = r"""
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%= ANY (%' AND query LIKE '%ended\_at IS NOT NULL%'
    """
    with ledger.session() as connection, connection.transaction():
        connection.execute("LOCK TABLE task_runs")
        end = time.monotonic() + 2  # longer than the longest pause between polls, shorter than the API's lock_timeout
        while time.monotonic() < end:
            (seen,) = connection.execute(waiting).fetchone() or (0,)
            if seen:
                return True
            connection.execute("SELECT pg_sleep(0.1), pg_stat_clear_snapshot()")
    return False


def test_waiting_requests_do_not_slow_down_others(stack: Stack, ledger: Ledger) -> None:
    count = "SELECT count(*) FROM task_runs"
    with faults.stopped(stack, "worker"), httpx2.Client(base_url="http://localhost:8060", timeout=30) as http:
        p99(http)  # the first requests connect and compile statements
        idle = p99(http)
        assert not polls(ledger)
        before = ledger.execute(count)[0][0]
        began = time.monotonic()
        with requests(WAITERS, "/tasks/add?x=1&y=1&wait=60") as waiters:
            wait_until(lambda: ledger.execute(count)[0][0] == before + WAITERS, 30, "all of them to wait")
            during = p99(http)
            print(f"p99 idle {idle * 1000:.1f} ms, with {WAITERS} waiting {during * 1000:.1f} ms")
            assert responded(waiters) == 0
            assert polls(ledger)
        wait_until(lambda: not polls(ledger), 8, "the polls to end")
        assert time.monotonic() - began < 60
    assert during < 2 * idle + PAUSE
    ended = stack.api.post("/tasks/add", params={"x": 1, "y": 1, "wait": 60})
    assert (ended.status_code, ended.json()["result"]) == (200, 2)


def test_stopping_api_responds_to_waiting_requests(stack: Stack, ledger: Ledger) -> None:
    count = "SELECT count(*) FROM task_runs"
    before = ledger.execute(count)[0][0]
    with faults.stopped(stack, "worker"), requests(50, "/tasks/add?x=1&y=1&wait=60") as waiters:
        wait_until(lambda: ledger.execute(count)[0][0] == before + 50, 30, "all of them to wait")
        with faults.stopped(stack, "backend"):
            assert responses(waiters) == {"202": 50}


def test_connections_stay_below_the_limit_with_four_api_processes_and_four_workers(
    stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone
) -> None:
    """PostgreSQL accepts 100, of which 3 are reserved for superusers."""
    sessions = "SELECT count(*) FROM pg_sleep(0.05), pg_stat_activity WHERE backend_type = 'client backend'"
    stack.up("--scale", "worker=4", BACKEND_PROCESSES="4")
    try:
        most, statuses = 0, Counter[str]()
        with under_load(each_second=60) as load, ledger.session() as connection:
            for _ in range(5):  # more requests at once than the API has connections
                deadline = time.monotonic() + 60
                with requests(400, "/tasks/effect?wait=20") as waiters:
                    while responded(waiters) < len(waiters):
                        assert time.monotonic() < deadline
                        most = max(most, *connection.execute(sessions).fetchone() or (0,))
                    statuses += responses(waiters)
        print(f"at most {most} connections; {dict(statuses)}")
        assert set(statuses) <= {"200", "202"}, statuses
        assert not load.errors
        assert 20 < most < 97
        assert_all_done(load.ids, started_again=None, timeout=180)
    finally:
        stack.up("--scale", "worker=1")
