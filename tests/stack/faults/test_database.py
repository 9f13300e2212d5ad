"""PostgreSQL and the result backend break."""

import time
from typing import Any
from uuid import uuid4

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import Settle
from tests.stack.faults.ledger import Ledger, under_load


def test_database_stopped_for_10_s(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        with faults.stopped(stack, "db"):
            wait_until(lambda: load.refused["503"] >= 200, 60, "requests to be refused meanwhile")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.refused) == {"503"}
    nothing_is_lost(load.ids, started_again=None)


def test_database_crashed_under_load(nothing_is_lost: Settle) -> None:
    with under_load() as load:
        faults.crash("db")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.refused) <= {"503"}
    nothing_is_lost(load.ids, started_again=None)


def test_a_session_cut_in_the_middle_of_a_run(stack: Stack, ledger: Ledger) -> None:
    task_id = stack.accept("stepwise", steps=20)
    wait_until(lambda: stack.api.get(f"/tasks/{task_id}").json()["progress"], 20, "the run to be at work")
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    assert {(True,)} == set(ledger.execute(sessions))
    run = stack.end_of(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 20, 1)


def test_a_duplicate_while_the_first_is_at_work(stack: Stack, nothing_is_lost: Settle) -> None:
    task_id = stack.accept("effect", seconds=3)
    stack.wait_for_start(task_id)
    send_again(stack, task_id, "effect", {"seconds": 3}, retries=0)
    nothing_is_lost([task_id])
    assert stack.end_of(stack.accept("add", x=1, y=1))["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1


def test_redelivered_message_of_a_live_process_is_parked(stack: Stack, ledger: Ledger) -> None:
    """A session of the test stands for the process: it holds its lock."""
    task_id, owner = str(uuid4()), 4711
    row = """
        INSERT INTO task_runs
            (id, name, queue, arguments, state, attempts, publish_count, owner, deadline, outbox_action)
        VALUES
            (%(id)s, 'add', 'celery', '{"x": 1, "y": 2}', 'STARTED', 1, 1, %(owner)s, now() + interval '1 h', 'publish')
    """
    with ledger.session() as process:
        process.execute("SELECT pg_advisory_lock_shared(%s, %s)", (0x72756E, owner))
        ledger.execute(row, id=task_id, owner=owner)
        parked = (
            "SELECT publish_at > now() + interval '20 s' FROM task_runs WHERE id = %(id)s AND outbox_action IS NOT NULL"
        )
        wait_until(lambda: ledger.execute(parked, id=task_id) == [(True,)], 30, "the message to be parked")
        assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1
    run = stack.end_of(task_id, timeout=60)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 3, 2)


def test_database_cut_off_while_a_task_runs(stack: Stack, nothing_is_lost: Settle) -> None:
    """Longer than PostgreSQL keeps a session that does not answer: its lock is released, but the process lives."""
    task_id = stack.accept("effect", seconds=70)
    stack.wait_for_start(task_id)
    with faults.cut_off("db"):
        wait_until(lambda: stack.api.get("/health/ready").json()["database"] != "ok", 20, "the database to be missed")
        elapsed = time.monotonic()
        wait_until(lambda: time.monotonic() - elapsed > 40, 60, "PostgreSQL to end the session")
    nothing_is_lost([task_id])
    assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1


def test_database_read_only_for_10_s(ledger: Ledger, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        ledger.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        ledger.execute("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: load.refused["503"] >= 200, 60, "requests to be refused meanwhile")
        finally:
            with ledger.session() as session:
                session.execute("SET default_transaction_read_only = off")
                session.execute("ALTER SYSTEM RESET default_transaction_read_only")
                session.execute("SELECT pg_reload_conf()")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.refused) == {"503"}
    nothing_is_lost(load.ids, started_again=None)


def send_again(stack: Stack, task_id: str, name: str, arguments: dict[str, Any], retries: int) -> None:
    code = (
        f"from app.celery_app import celery_app as c; c.send_task({name!r}, kwargs={arguments!r}, task_id={task_id!r}"
    )
    stack.compose("exec", "-T", "backend", "python", "-c", f"{code}, retries={retries})")


def test_result_backend_crashed(stack: Stack, nothing_is_lost: Settle) -> None:
    if stack.variant["result_backend"] != "redis":
        assert "redis" not in stack.project.compose["services"]
        return
    with under_load() as load:
        faults.crash("redis")
    assert not load.refused
    nothing_is_lost(load.ids)
    read = f"from app.celery_app import celery_app as c; print({{c.AsyncResult(i).state for i in {load.ids!r}}})"
    assert stack.compose("exec", "-T", "backend", "python", "-c", read).strip() == "{'SUCCESS'}"
