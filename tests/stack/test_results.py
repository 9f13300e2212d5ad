"""Results with each result backend: of the API, with several processes and after a restart, and of Celery."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.project import code_blocks
from tests.stack.conftest import SLUG, Stack, wait_until
from tests.variants import BACKENDS

VARIANTS = BACKENDS


def queues(stack: Stack) -> Any:
    """Return the number of messages in each queue except the dead letters, which other tests leave."""
    listed = stack.broker.get("/queues").json()
    return {queue["name"]: queue.get("messages", 0) for queue in listed if queue["name"] != "dead-letters"}


def relays(stack: Stack) -> Any:
    """Return the number of API processes that have started to serve since the container was started."""
    started = stack.project.run("docker", "inspect", "--format", "{{.State.StartedAt}}", f"{SLUG}-backend-1").stdout
    return stack.compose("logs", "--since", started.strip(), "backend").count("relay connected")


@pytest.mark.parametrize("processes", ["1", "4"])
def test_responses_are_the_same_from_every_process(stack: Stack, processes: str) -> None:
    stack.up(BACKEND_PROCESSES=processes)
    wait_until(lambda: relays(stack) >= int(processes), 90, f"{processes} processes to serve")
    ids = []
    for number in range(24):
        response = stack.api.post(
            "/tasks/add", params={"x": number, "y": 1, "wait": 60}, headers={"Connection": "close"}
        )
        assert (response.status_code, response.json()["result"]) == (200, number + 1)
        ids.append(response.json()["task_id"])
    stack.compose("restart", "backend")
    stack.up(BACKEND_PROCESSES=processes)
    for number, task_id in enumerate(ids):
        for _ in range(2):
            run = stack.api.get(f"/tasks/{task_id}", headers={"Connection": "close"}).json()
            assert (run["state"], run["result"]) == ("SUCCESS", number + 1)


def test_sender_receives_the_result_as_the_readme_shows(stack: Stack) -> None:
    (code,) = [code for code in code_blocks(stack.project.files["README.md"], "python") if "send_task" in code]
    assert stack.compose("exec", "-T", "backend", "python", "-c", code).splitlines()[0] == "5.0"


def test_runs_leave_no_messages_behind(stack: Stack) -> None:
    """With `rpc://`, unread replies would accumulate in queues."""
    began = datetime.now(UTC).isoformat()
    many = 990 if stack.variant["result_backend"] == "rpc" else 90
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda number: stack.enqueue("add", x=number, y=1), range(many)))
    ids |= {stack.enqueue("flaky", failures=1) for _ in range(10)}
    wait_until(lambda: stack.api.get("/tasks/").json()["tasks"] == [], 120, "every run to end")
    done = stack.history(since=began, state="SUCCESS")
    assert {run["task_id"] for run in done} == ids
    few = 10  # other tests may have left replies
    wait_until(lambda: sum(queues(stack).values()) < few, 20, "the messages of these runs to be gone")
