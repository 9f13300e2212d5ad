"""Faults of the API and of Flower, and the API during faults of the broker."""

import contextlib
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load


def p99(seconds: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(seconds, n=100)[98]


def test_backend_crashed_between_commit_and_publication(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with faults.frozen("rabbitmq"):
        ids = [stack.enqueue("effect") for _ in range(20)]
        faults.crash("backend")
    assert_all_done(ids)


def test_backend_frozen_in_the_middle_of_a_batch(stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone) -> None:
    """The relay locks the rows while it waits for confirms. Workers need the rows while the relay is frozen."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%%SKIP LOCKED%%'"
    )
    with contextlib.ExitStack() as freeze:
        with faults.frozen("rabbitmq"):
            ids = [stack.enqueue("effect") for _ in range(20)]
            wait_until(lambda: ledger.execute(waiting) == [(1,)], 20, "the relay to wait for confirms")
            freeze.enter_context(faults.frozen("backend"))
            assert ledger.execute(waiting) == [(1,)]
        wait_until(lambda: ledger.execute(waiting) == [(0,)], 40, "PostgreSQL to end the relay's transaction")
    assert_all_done(ids, sent_again=None)


def test_backend_restarted_under_load(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        stack.compose("restart", "backend")
        stack.up()
    assert_all_done(load.ids)


def test_backend_crashed_under_load_with_four_processes(stack: Stack, assert_all_done: AssertAllDone) -> None:
    stack.up(BACKEND_PROCESSES="4")
    try:
        with under_load() as load:
            faults.crash("backend")
        assert_all_done(load.ids)
    finally:
        stack.up()


def test_backend_crashed_among_requests_with_equal_keys(
    stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone
) -> None:
    """20 clients send the same 200 requests to four processes, and repeat each until it is answered."""
    count = "SELECT count(*) FROM task_runs"
    keys = [str(uuid4()) for _ in range(200)]
    deadline = time.monotonic() + 120
    answers: set[tuple[str, str]] = set()
    errors = Counter[str]()

    def post(http: httpx2.Client, key: str) -> str | None:
        try:
            response = http.post("/tasks/effect", headers={"Idempotency-Key": key})
        except httpx2.TransportError as error:
            errors[type(error).__name__] += 1
            faults.hold(0.1)
            return None
        return str(response.json()["task_id"]) if response.status_code == 202 else None

    def send_all() -> None:
        with httpx2.Client(base_url="http://localhost:8060", timeout=30) as http:
            for key in keys:
                while (task_id := post(http, key)) is None:
                    assert time.monotonic() < deadline
                answers.add((key, task_id))

    stack.up(BACKEND_PROCESSES="4")
    try:
        before = ledger.execute(count)[0][0]
        with ThreadPoolExecutor(20) as threads:
            clients = [threads.submit(send_all) for _ in range(20)]
            wait_until(lambda: len(answers) > 10, 30, "some requests to be answered")
            faults.crash("backend")
            for client in clients:
                client.result()
        assert errors["RemoteProtocolError"] + errors["ReadError"] > 0, errors  # interrupted, not refused
        ids = {task_id for _, task_id in answers}
        assert len(answers) == len(ids) == len(keys)
        assert_all_done(sorted(ids))
        assert ledger.execute(count) == [(before + len(keys),)]
    finally:
        stack.up()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_api_stays_available_without_broker(stack: Stack, assert_all_done: AssertAllDone, fault: Any) -> None:
    with under_load() as healthy:
        wait_until(lambda: len(healthy.ids) >= 400, 60, "400 to be accepted")
    broken = faults.frozen("rabbitmq") if fault == "frozen" else faults.stopped(stack, "rabbitmq")
    with broken, under_load() as load:
        wait_until(lambda: len(load.ids) >= 400, 60, "400 to be accepted")
        for _ in range(10):
            live = httpx2.get("http://localhost:8060/health/live")
            assert live.status_code == 200
            assert live.elapsed.total_seconds() < 1
        ready = stack.api.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["database"] == "ok"
        assert ready.json()["broker"] != "ok"
    assert not load.errors
    print(f"p99 healthy {p99(healthy.seconds) * 1000:.1f} ms, without the broker {p99(load.seconds) * 1000:.1f} ms")
    assert p99(load.seconds) < p99(healthy.seconds) + 0.5  # the relay waits 5 s for a broker that does not respond
    assert_all_done(healthy.ids + load.ids, started_again=None, timeout=180)


def test_flood_of_accepted_tasks_is_executed(stack: Stack, ledger: Ledger) -> None:
    stack.up()
    with under_load("add", each_second=2000, seconds=150, x=1, y=1) as load:
        wait_until(lambda: len(load.ids) >= 10_000, 160, "10,000 to be accepted")
    used = faults.docker("stats", "--no-stream", "--format", "{{.MemPerc}}", faults.container("backend"))
    assert float(used.rstrip("%")) < 60
    wait_until(lambda: ledger.unfinished(load.ids) == 0, 300, "every run to end")
    ended = "SELECT state, count(*) FROM task_runs WHERE id = ANY(%(ids)s) GROUP BY state"
    assert ledger.execute(ended, ids=load.ids) == [("SUCCESS", len(load.ids))]


def test_invalid_requests_leave_no_rows_and_no_messages(stack: Stack, ledger: Ledger) -> None:
    count = "SELECT count(*) FROM task_runs"
    published = f"{count} WHERE id = %(id)s AND published_at IS NOT NULL"
    with faults.stopped(stack, "worker"), httpx2.Client(base_url="http://localhost:8060") as http:
        rows = ledger.execute(count)
        statuses = {http.post("/tasks/effect", params={"seconds": "long"}).status_code for _ in range(1000)}
        assert statuses == {422}
        assert ledger.execute(count) == rows
        valid = stack.enqueue("effect")
        wait_until(lambda: ledger.execute(published, id=valid) == [(1,)], 30, "the message of a valid request")
        queue = "/queues/%2F/celery"  # its statistics are up to 5 s old
        wait_until(lambda: stack.broker.get(queue).json().get("messages") == 1, 20, "only this message in the queue")


def test_flower_crashed_and_flooded(stack: Stack, assert_all_done: AssertAllDone) -> None:
    flood = """
from app.celery_app import celery_app
with celery_app.connection_for_write() as connection, celery_app.events.Dispatcher(connection) as dispatcher:
    for number in range(10_000):
        dispatcher.send("task-received", uuid=f"flood-{number}", name="add", args="()", kwargs="{}")
"""
    with under_load() as load:
        faults.crash("flower")
        stack.compose("exec", "-T", "backend", "python", "-c", flood)
    assert_all_done(load.ids)
    stack.wait_for_flower(stack.enqueue("add", x=1, y=1), "SUCCESS")
