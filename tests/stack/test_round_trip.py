"""A task from request to result through the broker and a worker, and its display in Flower."""

from tests.stack.conftest import Stack


def test_task_runs_on_a_worker_and_returns_its_result(stack: Stack) -> None:
    run = stack.wait_for_end(stack.enqueue("add", x=2, y=3))
    assert (run["state"], run["result"]) == ("SUCCESS", 5)


def test_flower_shows_a_success_with_its_arguments(stack: Stack) -> None:
    task_id = stack.enqueue("add", x=2, y=3)
    task = stack.wait_for_flower(task_id, "SUCCESS")
    assert (task["name"], task["result"], task["kwargs"]) == ("add", "5.0", "{'x': 2.0, 'y': 3.0}")
    assert task["worker"] == stack.wait_for_end(task_id)["worker"]
    assert task_id in stack.flower.get("/api/tasks", params={"limit": 50}).json()


def test_flower_shows_a_failure_with_its_traceback(stack: Stack) -> None:
    task = stack.wait_for_flower(stack.enqueue("fail", reason="on purpose"), "FAILURE")
    assert task["exception"] == "ValueError('on purpose')"
    assert "raise ValueError(reason)" in task["traceback"]


def test_flower_shows_retries_and_revocations(stack: Stack) -> None:
    assert stack.wait_for_flower(stack.enqueue("flaky", failures=1), "SUCCESS")["retries"] == 1
    task_id = stack.enqueue("slow", duration=60)
    stack.wait_for_flower(task_id, "PROGRESS")
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    stack.wait_for_flower(task_id, "REVOKED")


def test_run_is_revoked_when_flower_terminates_it(stack: Stack) -> None:
    task_id = stack.enqueue("slow", duration=60)
    stack.wait_for_flower(task_id, "PROGRESS")
    response = stack.flower.post(f"/api/task/revoke/{task_id}", params={"terminate": "true"})
    assert response.status_code == 200, response.text
    assert stack.wait_for_end(task_id)["state"] == "REVOKED"


def test_invalid_request_stores_no_run(stack: Stack) -> None:
    newest = stack.api.get("/tasks/history", params={"limit": 1}).json()["tasks"]
    for path in ("slow?duration=long", "slow?duration=-1", "slow?durations=1", "add?x=1", "nonesuch"):
        response = stack.api.post(f"/tasks/{path}")
        assert response.status_code in (404, 405, 422), path
        assert response.headers["content-type"] == "application/problem+json"
    assert stack.api.get("/tasks/history", params={"limit": 1}).json()["tasks"] == newest
