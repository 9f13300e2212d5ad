"""The API's answers are right with each result backend, behind any number of processes, after a restart."""

import pytest

from tests.stack.conftest import wait_until


def queues(stack):
    return {queue["name"]: queue.get("messages", 0) for queue in stack.broker.get("/queues").json()}


@pytest.mark.parametrize("processes", ["1", "4"])
def test_answers_are_the_same_from_every_process(stack, processes):
    stack.up(BACKEND_PROCESSES=processes)
    serving = stack.compose("top", "backend").count("python")
    assert (serving > 4) == (processes == "4")
    ids = []
    for number in range(24):
        answer = stack.api.post("/tasks/add", params={"x": number, "y": 1, "wait": 5}, headers={"Connection": "close"})
        assert (answer.status_code, answer.json()["result"]) == (200, number + 1)
        ids.append(answer.json()["task_id"])
    stack.compose("restart", "backend")
    stack.up(BACKEND_PROCESSES=processes)
    for number, task_id in enumerate(ids):
        for _ in range(2):
            run = stack.api.get(f"/tasks/{task_id}", headers={"Connection": "close"}).json()
            assert (run["state"], run["result"]) == ("SUCCESS", number + 1)


def test_a_thousand_runs_leave_no_message_behind(stack):
    ids = [stack.accept("add", x=number, y=1) for number in range(990)]
    ids += [stack.accept("flaky", failures=1) for _ in range(10)]
    for task_id in ids:
        assert stack.end_of(task_id, timeout=120)["state"] == "SUCCESS"

    def left():
        return {name: messages for name, messages in queues(stack).items() if messages}

    wait_until(lambda: left() == {}, 20, "every queue to be empty")
    assert left() == {}
