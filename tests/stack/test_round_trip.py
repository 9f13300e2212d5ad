"""A task's way from the API through broker and worker and back, and what Flower shows of it."""

from tests.stack.conftest import Stack


def test_a_task_goes_from_the_api_to_a_worker_and_back(stack: Stack) -> None:
    run = stack.end_of(stack.accept("add", x=2, y=3))
    assert (run["state"], run["result"]) == ("SUCCESS", 5)


def test_flower_shows_it(stack: Stack) -> None:
    task_id = stack.accept("add", x=2, y=3)
    seen = stack.in_flower(task_id, "SUCCESS")
    assert (seen["name"], seen["result"], seen["kwargs"]) == ("add", "5.0", "{'x': 2.0, 'y': 3.0}")
    assert seen["worker"] == stack.end_of(task_id)["worker"]
    assert task_id in stack.flower.get("/api/tasks", params={"limit": 50}).json()


def test_flower_shows_a_failure_with_its_traceback(stack: Stack) -> None:
    seen = stack.in_flower(stack.accept("fail", reason="on purpose"), "FAILURE")
    assert seen["exception"] == "ValueError('on purpose')"
    assert "raise ValueError(reason)" in seen["traceback"]


def test_flower_shows_retries_and_revocations(stack: Stack) -> None:
    assert stack.in_flower(stack.accept("flaky", failures=1), "SUCCESS")["retries"] == 1
    task_id = stack.accept("slow", duration=60)
    stack.in_flower(task_id, "PROGRESS")
    assert stack.api.delete(f"/tasks/{task_id}").status_code == 200
    stack.in_flower(task_id, "REVOKED")


def test_a_task_that_flower_terminates_is_revoked_in_the_history(stack: Stack) -> None:
    task_id = stack.accept("slow", duration=60)
    stack.in_flower(task_id, "PROGRESS")
    answer = stack.flower.post(f"/api/task/revoke/{task_id}", params={"terminate": "true"})
    assert answer.status_code == 200, answer.text
    assert stack.end_of(task_id)["state"] == "REVOKED"


def test_bad_input_leaves_no_row_and_no_message(stack: Stack) -> None:
    newest = stack.api.get("/tasks/history", params={"limit": 1}).json()["tasks"]
    for path in ("slow?duration=long", "slow?duration=-1", "slow?durations=1", "add?x=1", "nonesuch"):
        answer = stack.api.post(f"/tasks/{path}")
        assert answer.status_code in (404, 405, 422), path
        assert answer.headers["content-type"] == "application/problem+json"
    assert stack.api.get("/tasks/history", params={"limit": 1}).json()["tasks"] == newest
