"""Settings and fixtures of all tests. Unit tests need no server; tests marked `services` need the running stack."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy.orm import Session

NO_SERVER = {
    "POSTGRES_PORT": "1",  # nothing listens there
    "POSTGRES_USER": "app",
    "POSTGRES_PASSWORD": "secret",
    "POSTGRES_DB": "app",
    "RABBITMQ_DEFAULT_USER": "app",
    "RABBITMQ_DEFAULT_PASS": "secret",
    "CELERY_RESULT_BACKEND": "cache+memory://",
}

if "CELERY_RESULT_BACKEND" not in os.environ:
    os.environ.update(NO_SERVER)

from app import discovery  # noqa: E402 (the settings are read on import)
from app.core import database  # noqa: E402

discovery.load_tasks()

ENDED = {"SUCCESS", "FAILURE", "REVOKED"}


class Api:
    """The API of the running stack."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http

    def enqueue(self, task: str, **arguments: Any) -> str:
        """Submit a task with query parameters; return the id of its run."""
        response = self.http.post(f"/tasks/{task}", params=arguments)
        assert response.status_code == 202, response.text
        task_id: str = response.json()["task_id"]
        assert response.headers["location"] == f"/tasks/{task_id}"
        return task_id

    def run(self, task_id: str) -> dict[str, Any]:
        """Return a run."""
        response = self.http.get(f"/tasks/{task_id}")
        assert response.status_code == 200, response.text
        run: dict[str, Any] = response.json()
        return run

    def wait_for(
        self, task_id: str, condition: Callable[[dict[str, Any]], bool], timeout: float = 30
    ) -> dict[str, Any]:
        """Return a run once a condition holds. A run that was sent without the outbox has no row until it starts."""
        deadline = time.monotonic() + timeout
        while True:
            response = self.http.get(f"/tasks/{task_id}")
            if response.status_code == 200 and condition(response.json()):
                run: dict[str, Any] = response.json()
                return run
            assert time.monotonic() < deadline, f"condition not met within {timeout} s, last response: {response.text}"
            time.sleep(0.1)

    def wait_for_end(self, task_id: str, timeout: float = 30) -> dict[str, Any]:
        """Return a run once it has ended."""
        return self.wait_for(task_id, lambda run: run["state"] in ENDED, timeout)

    def history(self, **filters: Any) -> list[dict[str, Any]]:
        """Return all runs that match the filters, page by page."""
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
    key = os.environ.get("API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(base_url=os.environ.get("API_URL", "http://backend:8060"), headers=headers, timeout=70) as http:
        yield Api(http)


@pytest.fixture
def session() -> Iterator[Session]:
    """Open a session on the database of the running stack; uncommitted changes are rolled back."""
    with Session(database.engine()) as opened:
        yield opened
