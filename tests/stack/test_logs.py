"""Log lines of a task's life."""

import json
from typing import Any

import pytest

from tests.stack.conftest import OWN_SERVICES, Stack, wait_until
from tests.variants import Variant

VARIANTS = [Variant.of()]


@pytest.fixture(scope="module")
def lines(deployed: Stack) -> list[dict[str, Any]]:
    """Restart the processes, enqueue two runs with request ids, and return every log line: each is JSON."""
    stack = deployed
    stack.compose("restart", *OWN_SERVICES)
    wait_until(stack.is_healthy, 90, "every service to be healthy again")
    for task, request_id in (("fail", "request-fail"), ("flaky", "request-flaky")):
        headers = {"X-Request-ID": request_id}
        params = {"reason": "no such customer"} if task == "fail" else {}
        stack.wait_for_end(stack.api.post(f"/tasks/{task}", params=params, headers=headers).json()["task_id"])

    def read() -> list[dict[str, Any]]:
        logs = stack.compose("logs", "--no-log-prefix", *OWN_SERVICES)
        parsed = sorted((json.loads(line) for line in logs.splitlines()), key=lambda line: str(line["timestamp"]))
        ends = ("raised unexpected", "succeeded")  # logged after the end is in the history
        return parsed if all(any(end in line["event"] for line in parsed if "task_id" in line) for end in ends) else []

    found: list[dict[str, Any]] = wait_until(read, 10, "the lines of both ends")
    return found


def test_life_of_a_task_is_followed_by_the_id_of_its_request(lines: list[dict[str, Any]]) -> None:
    flaky = [line for line in lines if line.get("request_id") == "request-flaky"]
    assert [line["event"] for line in flaky if line["logger"].startswith("app.core.api")] == ["task enqueued"]
    assert {line["task_id"] for line in flaky} == {flaky[0]["task_id"]}
    attempts = [line["attempt"] for line in flaky if "attempt" in line]
    assert attempts == sorted(attempts)
    assert set(attempts) == {1, 2, 3}
    assert "succeeded" in flaky[-1]["event"]


def test_failed_attempt_is_one_line(lines: list[dict[str, Any]]) -> None:
    """With its id, the name of its task, its number and the traceback."""
    (failed,) = [line for line in lines if line.get("request_id") == "request-fail" and "attempt" in line]
    assert (failed["task"], failed["attempt"], failed["level"]) == ("fail", 1, "error")
    assert failed["task_id"]
    assert "ValueError: no such customer" in failed["exception"]
    assert "in fail" in failed["exception"]
    retried = [line for line in lines if line.get("request_id") == "request-flaky" and "exception" in line]
    assert [line["attempt"] for line in retried] == [1, 2]
    assert all("ConnectionError: attempt" in line["exception"] for line in retried)
