"""Workers break, are stopped and replaced, and tasks misbehave."""

import json
from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import Settle
from tests.stack.faults.ledger import Ledger, under_load


def test_worker_crashed_in_the_middle_of_tasks(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        long = [stack.accept("effect", seconds=5) for _ in range(2)]
        stack.wait_for_start(*long)
        faults.crash("worker")
    assert not load.refused
    account = nothing_is_lost(load.ids + long, started_again=2, timeout=25)  # at once, not when they are missed
    assert account.started_again == 2


def test_pool_process_killed(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load(seconds=60) as load:
        (stats,) = stack.flower.get("/api/workers/stats", params={"refresh": 1}).json().values()
        victim = stats["pool"]["processes"][0]
        stack.compose("exec", "-T", "worker", "python", "-c", f"import os; os.kill({victim}, 9)")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 200, 60, "more load")
    nothing_is_lost(load.ids, started_again=1)


def test_worker_stopped_with_tasks_at_work(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load(each_second=8) as load:
        long = [stack.accept("effect", seconds=30) for _ in range(2)]
        stack.wait_for_start(*long)
        stack.compose("stop", "worker")
        assert faults.exit_code("worker") == 0
        stack.compose("up", "--wait", "worker")
    nothing_is_lost(load.ids + long, started_again=4, timeout=180)


def test_one_of_three_workers_crashed(stack: Stack, nothing_is_lost: Settle) -> None:
    stack.up("--scale", "worker=3")
    try:
        with under_load() as load:
            faults.crash("worker", 2)
        nothing_is_lost(load.ids, started_again=2)
    finally:
        stack.up("--scale", "worker=1")


def test_workers_replaced_under_load(stack: Stack, nothing_is_lost: Settle) -> None:
    stack.up("--scale", "worker=2")
    try:
        with under_load() as load:
            for number in (1, 2):
                faults.docker("restart", faults.container("worker", number))
        nothing_is_lost(load.ids, started_again=8)
    finally:
        stack.up("--scale", "worker=1")


def test_a_task_that_kills_its_process_ends_as_a_failure_while_its_neighbours_finish(
    stack: Stack, nothing_is_lost: Settle
) -> None:
    poison = stack.accept("poison")
    with under_load(each_second=10) as load:
        run = stack.end_of(poison, timeout=120)
    assert run["state"] == "FAILURE"
    assert run["error"] == "gave up: worker lost 6 times"
    nothing_is_lost(load.ids, started_again=12)


def test_memory_error_fails_the_run_and_not_the_worker(stack: Stack) -> None:
    before = faults.starts("worker")
    neighbour = stack.accept("effect", seconds=5)
    stack.wait_for_start(neighbour)
    run = stack.end_of(stack.accept("exhausting"))
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "MemoryError", 1)
    assert stack.end_of(neighbour)["attempts"] == 1
    assert faults.starts("worker") == before


def test_interruptions_by_deploys_are_no_losses(stack: Stack, ledger: Ledger) -> None:
    task_id = stack.accept("effect", seconds=60)
    for attempt in range(1, 7):
        wait_until(lambda: ledger.begun(task_id) == attempt, 60, f"attempt {attempt} to run")  # noqa: B023
        stack.compose("restart", "worker")
    wait_until(lambda: ledger.begun(task_id) == 7, 60, "attempt 7 to run")
    assert ledger.execute("SELECT losses FROM task_runs WHERE id = %(id)s", id=task_id) == [(0,)]
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200


def test_effect_in_the_runs_session_happens_exactly_once(ledger: Ledger) -> None:
    """The effect is not guarded, and processes are killed between it and the end of the run."""
    counts = {}
    for task in ("record", "record_async", "record_outside"):
        with under_load(task, each_second=25) as load:
            faults.kill_pool_processes(faults.container("worker"), 20)
        ledger.account(load.ids, timeout=240)
        states = "SELECT DISTINCT state FROM task_runs WHERE id = ANY(%(ids)s)"
        assert ledger.execute(states, ids=load.ids) == [("SUCCESS",)]
        rows = "SELECT count(*), count(DISTINCT run_id) FROM session_effects WHERE run_id = ANY(%(ids)s)"
        counts[task] = (len(load.ids), *ledger.execute(rows, ids=load.ids)[0])
    for task in ("record", "record_async"):
        accepted, rows_written, runs_written = counts[task]
        assert accepted >= 400
        assert rows_written == runs_written == accepted, counts
    accepted, rows_written, runs_written = counts["record_outside"]
    assert runs_written == accepted
    assert rows_written > accepted, counts  # at least once


def test_paused_worker_loses_its_run_at_the_deadline(stack: Stack, ledger: Ledger) -> None:
    """After 4 + 30 s, to the other worker; its own end is refused when it wakes up."""
    stack.up("--scale", "worker=2")
    try:
        task_id = stack.accept("limited")
        stack.wait_for_start(task_id)
        worker = stack.api.get(f"/tasks/{task_id}").json()["worker"].removeprefix("worker@")
        faults.docker("pause", worker)
        try:
            run = stack.end_of(task_id, timeout=150)
            assert run["state"] == "SUCCESS"
            assert run["worker"] != f"worker@{worker}"
        finally:
            faults.docker("unpause", worker)
        assert stack.end_of(stack.accept("add", x=1, y=1))["state"] == "SUCCESS"
        wait_until(stack.is_healthy, 90, "the worker to recover")
        assert ledger.execute("SELECT count(*) FROM session_effects WHERE run_id = %(id)s", id=task_id) == [(1,)]
    finally:
        stack.up("--scale", "worker=1")


def test_a_task_that_outlives_its_hard_limit_ends_as_a_failure_with_the_reason(stack: Stack) -> None:
    run = stack.end_of(stack.accept("endless"), timeout=30)
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "killed at its hard time limit of 3 s", 1)


def test_countdowns_do_not_delay_what_is_due_now(stack: Stack) -> None:
    code = "from app.celery_app import celery_app as c\nfor _ in range(100): c.send_task('add', (1, 1), countdown=20)"
    stack.compose("exec", "-T", "backend", "python", "-c", code)
    answer = stack.api.post("/tasks/add", params={"x": 1, "y": 1, "wait": 1})
    assert (answer.status_code, answer.json()["result"]) == (200, 2)


def test_a_message_that_nobody_can_do_anything_with_is_a_dead_letter(stack: Stack) -> None:
    def dead() -> Any:
        return stack.broker.get("/queues/%2F/dead-letters").json().get("messages", 0)

    before = dead()
    unknown = "from app.celery_app import celery_app as c; c.send_task('nonesuch')"
    stack.compose("exec", "-T", "backend", "python", "-c", unknown)
    garbage = {"properties": {}, "routing_key": "celery", "payload": "\u0000", "payload_encoding": "string"}
    published = stack.broker.post("/exchanges/%2F/celery/publish", content=json.dumps(garbage))
    assert published.json() == {"routed": True}
    wait_until(lambda: dead() == before + 2, 30, "two more dead letters")
    assert stack.end_of(stack.accept("add", x=1, y=1))["state"] == "SUCCESS"


def test_a_pending_run_that_was_revoked_never_starts(stack: Stack, ledger: Ledger) -> None:
    with faults.stopped(stack, "worker"):
        task_id = stack.accept("effect")
        assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    marker = stack.accept("add", x=1, y=1)
    assert stack.end_of(marker)["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.begun(task_id) == 0


def test_a_running_one_that_was_revoked_is_terminated(stack: Stack, ledger: Ledger, nothing_is_lost: Settle) -> None:
    """The next task has its process within the 5 s in which Celery looks after its pool; its neighbour works on."""
    neighbour = stack.accept("effect", seconds=12)
    task_id = stack.accept("effect", seconds=300)
    stack.wait_for_start(neighbour, task_id)
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    answer = stack.api.post("/tasks/add", params={"x": 1, "y": 1, "wait": 10})
    assert (answer.status_code, answer.json()["result"]) == (200, 2)
    assert stack.api.get(f"/tasks/{neighbour}").json()["state"] == "STARTED"
    nothing_is_lost([neighbour])
    stack.in_flower(task_id, "REVOKED")
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.begun(task_id) == 1


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_revocation_outlives_the_worker(stack: Stack, ledger: Ledger, way: Any) -> None:
    """The message of a run that was at work comes back to the next worker, which no broadcast has told of the end."""
    task_id = stack.accept("effect", seconds=300)
    stack.wait_for_start(task_id)
    with faults.stopped(stack, "worker", way):
        assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    marker = stack.accept("add", x=1, y=1)
    assert stack.end_of(marker)["state"] == "SUCCESS"
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "REVOKED"
    assert ledger.begun(task_id) == 1


def test_retries_are_told_in_the_history(stack: Stack) -> None:
    task_id = stack.accept("flaky", failures=2)
    between = wait_until(lambda: in_retry(stack, task_id), 20, "an attempt to have failed")
    assert between["error"] == "ConnectionError: attempt 1: connection refused"
    assert between["attempts"] == 1
    assert between["next_try_at"] > between["started_at"]
    run = stack.end_of(task_id)
    assert (run["state"], run["attempts"], run["next_try_at"]) == ("SUCCESS", 3, None)


def in_retry(stack: Stack, task_id: str) -> Any:
    run = stack.api.get(f"/tasks/{task_id}").json()
    return run if (run["state"], run["attempts"]) == ("RETRY", 1) else None
