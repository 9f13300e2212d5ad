"""PostgreSQL and the result backend break."""

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
    lock = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    assert ledger.execute(lock) == [(True,)]
    run = stack.end_of(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 20, 1)


def test_a_duplicate_while_the_first_is_at_work(stack: Stack, nothing_is_lost: Settle) -> None:
    task_id = stack.accept("effect", seconds=3)
    stack.wait_for_start(task_id)
    send_again(stack, task_id, "effect", {"seconds": 3}, retries=0)
    nothing_is_lost([task_id])
    assert stack.end_of(stack.accept("add", x=1, y=1))["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["attempts"] == 1


def test_a_retry_that_arrives_before_its_first_attempt_has_let_go(stack: Stack, ledger: Ledger) -> None:
    """The lock of the attempt that failed is held here, while the message of the next is delivered."""
    task_id = str(uuid4())
    row = """
        INSERT INTO task_runs (id, name, queue, arguments, state, attempts, retries)
        VALUES (%(id)s, 'add', 'celery', '{"x": 1, "y": 2}', 'RETRY', 1, 1)
    """
    ledger.execute(row, id=task_id)
    with ledger.session() as first:
        first.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (task_id,))
        send_again(stack, task_id, "add", {"x": 1, "y": 2}, retries=1)
        waiting = stack.end_of(stack.accept("slow", duration=2))
        assert waiting["state"] == "SUCCESS"
        assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "RETRY"
    run = stack.end_of(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 3, 2)


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
