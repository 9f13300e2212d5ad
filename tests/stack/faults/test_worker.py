"""Faults, stops and replacements of workers, and tasks that misbehave."""

import json
from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load


def test_worker_crashed_with_running_tasks(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        long = [stack.enqueue("effect", seconds=5) for _ in range(2)]
        stack.wait_for_start(*long)
        faults.crash("worker")
    assert not load.errors
    account = assert_all_done(load.ids + long, started_again=2, timeout=90)  # on redelivery, not at the deadline
    assert account.started_again == 2


def test_pool_process_killed(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load(seconds=60) as load:
        (stats,) = stack.flower.get("/api/workers/stats", params={"refresh": 1}).json().values()
        victim = stats["pool"]["processes"][0]
        stack.compose("exec", "-T", "worker", "python", "-c", f"import os; os.kill({victim}, 9)")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 200, 60, "more load")
    assert_all_done(load.ids, started_again=1)


def test_worker_stopped_with_running_tasks(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load(each_second=8) as load:
        long = [stack.enqueue("effect", seconds=30) for _ in range(2)]
        stack.wait_for_start(*long)
        stack.compose("stop", "worker")
        assert faults.exit_code("worker") == 0
        stack.compose("up", "--wait", "worker")
    assert assert_all_done(load.ids + long, started_again=2, timeout=180).started_again == 2


def test_one_of_three_workers_crashed(stack: Stack, assert_all_done: AssertAllDone) -> None:
    stack.up("--scale", "worker=3")
    try:
        with under_load() as load:
            faults.crash("worker", 2)
        assert_all_done(load.ids, started_again=2)
    finally:
        stack.up("--scale", "worker=1")


def test_workers_replaced_under_load(stack: Stack, assert_all_done: AssertAllDone) -> None:
    stack.up("--scale", "worker=2")
    try:
        with under_load() as load:
            for number in (1, 2):
                faults.docker("restart", faults.container("worker", number))
        assert_all_done(load.ids)
    finally:
        stack.up("--scale", "worker=1")


def test_poison_task_fails_while_other_tasks_finish(stack: Stack, assert_all_done: AssertAllDone) -> None:
    poison = stack.enqueue("poison")
    with under_load(each_second=10) as load:
        run = stack.wait_for_end(poison, timeout=120)
    assert run["state"] == "FAILURE"
    assert run["error"] == "gave up: worker lost 6 times"
    assert_all_done(load.ids, started_again=12)


def test_memory_error_fails_the_run_but_not_the_worker(stack: Stack) -> None:
    before = faults.started_at("worker")
    other = stack.enqueue("effect", seconds=5)
    stack.wait_for_start(other)
    run = stack.wait_for_end(stack.enqueue("exhausting"))
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "MemoryError", 1)
    assert stack.wait_for_end(other)["attempts"] == 1
    assert faults.started_at("worker") == before


def test_worker_restarts_do_not_count_as_losses(stack: Stack, ledger: Ledger) -> None:
    task_id = stack.enqueue("effect", seconds=60)
    for attempt in range(1, 7):
        wait_until(lambda: ledger.attempts(task_id) == attempt, 60, f"attempt {attempt} to run")  # noqa: B023 (called at once)
        stack.compose("restart", "worker")
    wait_until(lambda: ledger.attempts(task_id) == 7, 60, "attempt 7 to run")
    assert ledger.execute("SELECT losses FROM task_runs WHERE id = %(id)s", id=task_id) == [(0,)]
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200


@pytest.mark.parametrize("task", ["record", "record_async"])
def test_effect_in_run_session_commits_with_the_end_of_the_run(stack: Stack, ledger: Ledger, task: str) -> None:
    """The worker crashes after the last write of the task, while it waits for a lock to end the run."""
    rows = "SELECT count(*) FROM session_effects WHERE run_id = %(id)s"
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    task_id = stack.enqueue(task, seconds=2)
    stack.wait_for_start(task_id)
    with ledger.session() as lock, lock.transaction():
        lock.execute("SELECT FROM task_runs WHERE id = %s FOR UPDATE", (task_id,))
        wait_until(lambda: ledger.execute(waiting) == [(1,)], 20, "the end of the run to wait")
        assert ledger.execute(rows, id=task_id) == [(0,)]
        faults.kill("worker")
    run = stack.wait_for_end(task_id, timeout=120)
    assert (run["state"], run["attempts"]) == ("SUCCESS", 2)
    assert ledger.execute(rows, id=task_id) == [(1,)]


def test_effect_in_run_session_happens_exactly_once(ledger: Ledger) -> None:
    """The effect has no guard, and processes are killed between it and the end of the run."""
    counts = {}
    for task in ("record", "record_async", "record_outside"):
        with under_load(task, each_second=25) as load:
            for _ in range(16):
                faults.kill_pool_processes(faults.container("worker"), 5)
                if len(load.ids) >= 500:
                    break
        ledger.account(load.ids, timeout=240)
        states = "SELECT DISTINCT state FROM task_runs WHERE id = ANY(%(ids)s)"
        assert ledger.execute(states, ids=load.ids) == [("SUCCESS",)]
        rows = "SELECT count(*), count(DISTINCT run_id) FROM session_effects WHERE run_id = ANY(%(ids)s)"
        counts[task] = (len(load.ids), *ledger.execute(rows, ids=load.ids)[0])
    for task in ("record", "record_async"):
        accepted, rows_written, runs_written = counts[task]
        assert accepted >= 500
        assert rows_written == runs_written == accepted, counts
    accepted, rows_written, runs_written = counts["record_outside"]
    assert runs_written == accepted
    assert rows_written > accepted, counts  # at least once


def test_run_of_a_frozen_worker_starts_elsewhere_at_its_deadline(stack: Stack, ledger: Ledger) -> None:
    """The other worker takes the run after 6 + 30 s. The end by the frozen worker is rejected when it resumes."""
    stack.up("--scale", "worker=2")
    try:
        task_id = stack.enqueue("limited")
        stack.wait_for_start(task_id)
        worker = stack.api.get(f"/tasks/{task_id}").json()["worker"].removeprefix("worker@")
        faults.docker("pause", worker)
        try:
            run = stack.wait_for_end(task_id, timeout=150)
            assert run["state"] == "SUCCESS"
            assert run["worker"] != f"worker@{worker}"
        finally:
            faults.docker("unpause", worker)
        assert stack.wait_for_end(stack.enqueue("add", x=1, y=1))["state"] == "SUCCESS"
        wait_until(stack.is_healthy, 90, "the worker to recover")
        assert ledger.execute("SELECT count(*) FROM session_effects WHERE run_id = %(id)s", id=task_id) == [(1,)]
    finally:
        stack.up("--scale", "worker=1")


def test_run_fails_when_it_exceeds_its_hard_time_limit(stack: Stack) -> None:
    run = stack.wait_for_end(stack.enqueue("endless"), timeout=30)
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "killed at its hard time limit of 3 s", 1)


def test_countdown_messages_do_not_delay_others(stack: Stack) -> None:
    code = "from app.celery_app import celery_app as c\nfor _ in range(100): c.send_task('add', (1, 1), countdown=60)"
    stack.compose("exec", "-T", "backend", "python", "-c", code)
    response = stack.api.post("/tasks/add", params={"x": 1, "y": 1, "wait": 15})
    assert (response.status_code, response.json()["result"]) == (200, 2)


def test_unprocessable_message_becomes_a_dead_letter(stack: Stack) -> None:
    def dead_letters() -> Any:
        return stack.broker.get("/queues/%2F/dead-letters").json().get("messages", 0)

    before = dead_letters()
    unknown = "from app.celery_app import celery_app as c; c.send_task('nonesuch')"
    stack.compose("exec", "-T", "backend", "python", "-c", unknown)
    garbage = {"properties": {}, "routing_key": "celery", "payload": "\u0000", "payload_encoding": "string"}
    published = stack.broker.post("/exchanges/%2F/celery/publish", content=json.dumps(garbage))
    assert published.json() == {"routed": True}
    wait_until(lambda: dead_letters() == before + 2, 30, "two more dead letters")
    assert stack.wait_for_end(stack.enqueue("add", x=1, y=1))["state"] == "SUCCESS"


def test_pending_run_never_starts_when_it_is_revoked(stack: Stack, ledger: Ledger) -> None:
    with faults.stopped(stack, "worker"):
        task_id = stack.enqueue("effect")
        published = "SELECT count(*) FROM task_runs WHERE id = %(id)s AND published_at IS NOT NULL"
        wait_until(lambda: ledger.execute(published, id=task_id) == [(1,)], 30, "its message")
        assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    marker = stack.enqueue("add", x=1, y=1)
    assert stack.wait_for_end(marker)["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.attempts(task_id) == 0


def test_running_task_is_terminated_when_it_is_revoked(
    stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone
) -> None:
    """Celery checks its pool every 5 s, so the next task gets a process by then. The other task keeps running."""
    other = stack.enqueue("effect", seconds=25)
    task_id = stack.enqueue("effect", seconds=300)
    stack.wait_for_start(other, task_id)
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    response = stack.api.post("/tasks/add", params={"x": 1, "y": 1, "wait": 15})
    assert (response.status_code, response.json()["result"]) == (200, 2)
    assert stack.api.get(f"/tasks/{other}").json()["state"] == "STARTED"
    assert_all_done([other])
    stack.wait_for_flower(task_id, "REVOKED")
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.attempts(task_id) == 1


@pytest.mark.parametrize("command", ["stop", "kill"])
def test_revocation_survives_the_loss_of_the_worker(stack: Stack, ledger: Ledger, command: Any) -> None:
    """The message of the run is redelivered to a worker that has not received the broadcast revocation."""
    task_id = stack.enqueue("effect", seconds=300)
    stack.wait_for_start(task_id)
    with faults.stopped(stack, "worker", command):
        assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    marker = stack.enqueue("add", x=1, y=1)
    assert stack.wait_for_end(marker)["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.attempts(task_id) == 1


def test_history_reports_a_scheduled_retry(stack: Stack) -> None:
    task_id = stack.enqueue("flaky", failures=2)
    between = wait_until(lambda: find_retry(stack, task_id), 20, "the first attempt to fail")
    assert between["error"] == "ConnectionError: attempt 1: connection refused"
    assert between["attempts"] == 1
    assert between["next_try_at"] > between["started_at"]
    run = stack.wait_for_end(task_id)
    assert (run["state"], run["attempts"], run["next_try_at"]) == ("SUCCESS", 3, None)


def find_retry(stack: Stack, task_id: str) -> Any:
    """Return a run that waits for its second attempt, else none."""
    run = stack.api.get(f"/tasks/{task_id}").json()
    return run if (run["state"], run["attempts"]) == ("RETRY", 1) else None
