"""Faults of PostgreSQL and of the result backend."""

from typing import Any
from uuid import uuid4

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, celery_states, under_load


def test_database_stopped_for_10_s(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        with faults.stopped(stack, "db"):
            faults.hold(10)
            wait_until(lambda: load.errors["503"] >= 100, 60, "requests to fail")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.errors) == {"503"}
    assert_all_done(load.ids, started_again=None)


def test_database_crashed_under_load(assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        faults.crash("db")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.errors) <= {"503"}
    assert_all_done(load.ids, started_again=None)


def test_run_succeeds_when_its_session_is_terminated(stack: Stack, ledger: Ledger) -> None:
    task_id = stack.enqueue("stepwise", steps=20)
    wait_until(lambda: stack.api.get(f"/tasks/{task_id}").json()["progress"], 20, "progress")
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    assert {(True,)} == set(ledger.execute(sessions))
    run = stack.wait_for_end(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 20, 1)


def test_duplicate_message_delivered_while_its_run_executes(stack: Stack, assert_all_done: AssertAllDone) -> None:
    task_id = stack.enqueue("effect", seconds=20)
    stack.wait_for_start(task_id)
    send_again(stack, task_id, "effect", {"seconds": 20}, retries=0)
    assert stack.wait_for_end(stack.enqueue("add", x=1, y=1))["state"] == "SUCCESS"  # after the duplicate
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "STARTED"
    assert_all_done([task_id])
    assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1


def test_redelivered_message_of_a_live_process_is_parked(stack: Stack, ledger: Ledger) -> None:
    """A session of the test holds the lock of the process."""
    task_id, owner = str(uuid4()), 4711
    row = """
        INSERT INTO task_runs
            (id, name, queue, arguments, state, attempts, publish_count, owner, started_at, deadline, outbox_action)
        VALUES
            (%(id)s, 'add', 'celery', '{"x": 1, "y": 2}', 'STARTED', 1, 1, %(owner)s, now(), now() + interval '1 h',
             'publish')
    """
    with ledger.session() as process:
        process.execute("SELECT pg_advisory_lock_shared(%s, %s)", (0x72756E, owner))
        ledger.execute(row, id=task_id, owner=owner)
        parked = (
            "SELECT publish_at > now() + interval '20 s' FROM task_runs WHERE id = %(id)s AND outbox_action IS NOT NULL"
        )
        wait_until(lambda: ledger.execute(parked, id=task_id) == [(True,)], 30, "the message to be parked")
        assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1
    run = stack.wait_for_end(task_id, timeout=60)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 3, 2)


def test_database_cut_off_while_a_task_runs(stack: Stack, assert_all_done: AssertAllDone) -> None:
    """PostgreSQL ends the session after a timeout and releases its lock, but the process is alive."""
    task_id = stack.enqueue("effect", seconds=70)
    stack.wait_for_start(task_id)
    with faults.cut_off("db"):
        wait_until(
            lambda: stack.api.get("/health/ready").json()["database"] != "ok", 20, "the database to be unavailable"
        )
        faults.hold(40)  # PostgreSQL detects a vanished peer after 25 s
    assert_all_done([task_id])
    assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1


def test_database_read_only_for_10_s(ledger: Ledger, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        ledger.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        ledger.execute("SELECT pg_reload_conf()")
        try:
            faults.hold(10)
            wait_until(lambda: load.errors["503"] >= 100, 60, "requests to fail")
        finally:
            with ledger.session() as session:
                session.execute("SET default_transaction_read_only = off")
                session.execute("ALTER SYSTEM RESET default_transaction_read_only")
                session.execute("SELECT pg_reload_conf()")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.errors) == {"503"}
    assert_all_done(load.ids, started_again=None)


def send_again(stack: Stack, task_id: str, name: str, arguments: dict[str, Any], retries: int) -> None:
    """Publish another message for a run."""
    code = (
        f"from app.celery_app import celery_app as c; c.send_task({name!r}, kwargs={arguments!r}, task_id={task_id!r}"
    )
    stack.compose("exec", "-T", "backend", "python", "-c", f"{code}, retries={retries})")


def test_result_backend_crashed(stack: Stack, assert_all_done: AssertAllDone) -> None:
    if stack.variant["result_backend"] != "redis":
        assert "redis" not in stack.project.compose["services"]
        return
    with under_load() as load:
        faults.crash("redis")
    assert not load.errors
    assert_all_done(load.ids)
    assert celery_states(stack, load.ids) == {"SUCCESS"}
