"""What the tests against the running services share."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

ENDED = {"SUCCESS", "FAILURE", "REVOKED"}


class Api:
    """The API, as its users see it."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http

    def post(self, task: str, **arguments: Any) -> str:
        answer = self.http.post(f"/tasks/{task}", params=arguments)
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        assert answer.headers["location"] == f"/tasks/{task_id}"
        return task_id

    def run(self, task_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def wait_for(self, task_id: str, holds: Callable[[dict[str, Any]], bool], timeout: float = 30) -> dict[str, Any]:
        """The run, once a condition holds; one that the API did not accept has no row until it starts."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self.http.get(f"/tasks/{task_id}")
            if answer.status_code == 200 and holds(answer.json()):
                run: dict[str, Any] = answer.json()
                return run
            assert time.monotonic() < deadline, f"still waiting after {timeout} s, last seen: {answer.text}"
            time.sleep(0.1)

    def end_of(self, task_id: str, timeout: float = 30) -> dict[str, Any]:
        return self.wait_for(task_id, lambda run: run["state"] in ENDED, timeout)

    def history(self, **filters: Any) -> list[dict[str, Any]]:
        """Every run that the filters let pass, page by page."""
        runs: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.http.get("/tasks/history", params=filters | ({"cursor": cursor} if cursor else {})).json()
            runs += page["tasks"]
            cursor = page["next_cursor"]
            if cursor is None:
                return runs


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    with httpx2.Client(base_url=os.environ.get("API_URL", "http://backend:8060"), timeout=70) as http:
        yield Api(http)
