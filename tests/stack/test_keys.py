"""API keys."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.stack.conftest import Stack
from tests.variants import Variant

VARIANTS = [Variant.of()]
KEYS = {"web": "w" * 20, "shop": "s" * 20}
PROTECTED = ["/tasks/", "/tasks/history", "/queues", "/schedules", "/nowhere"]


@contextlib.contextmanager
def api_with_keys(stack: Stack) -> Iterator[None]:
    """Run the services with keys, and without them afterwards."""
    stack.up(API_KEYS=",".join(f"{name}:{key}" for name, key in KEYS.items()))
    try:
        yield
    finally:
        stack.up()


def bearer(key: str) -> dict[str, str]:
    """Return the header with a key."""
    return {"Authorization": f"Bearer {key}"}


def test_requests_need_a_key_and_runs_have_its_name(stack: Stack) -> None:
    with api_with_keys(stack):
        for path in PROTECTED:
            for headers in ({}, bearer("wrong"), bearer("w" * 19)):
                response = stack.api.get(path, headers=headers)
                assert response.status_code == 401, (path, headers)
                assert response.headers["content-type"] == "application/problem+json"
        assert stack.api.post("/tasks/add?x=1&y=1").status_code == 401
        assert stack.api.get("/health/ready").status_code == 200
        for name, key in KEYS.items():
            response = stack.api.post("/tasks/add?x=1&y=1&wait=60", headers=bearer(key))
            assert (response.status_code, response.json()["api_key"]) == (200, name)
        history = stack.flower.get("/runs")
        assert (history.status_code, "add" in history.text) == (200, True)
        run = stack.flower.get(f"/runs/{response.json()['task_id']}")
        assert "shop" in run.text
        logs = stack.compose("logs", "backend", "worker", "flower")  # `backend` is another container afterwards
    assert "task enqueued" in logs
    assert not any(key in logs for key in (*KEYS.values(), stack.project.env["FLOWER_API_KEY"]))


def test_own_tests_of_a_project_pass_with_keys(stack: Stack) -> None:
    with api_with_keys(stack):
        options = ("-m", "", "tests/features")
        output = stack.compose("run", "--rm", "--build", "-T", "test", "pytest", *options)
    assert "passed" in output


def test_invalid_keys_stop_the_api_with_an_error_line(stack: Stack) -> None:
    with pytest.raises(AssertionError) as stopped:
        stack.compose("run", "--rm", "--no-deps", "-T", "--env", "API_KEYS=web:short", "backend")
    assert "API_KEYS: " in str(stopped.value)
    assert "use name:key" in str(stopped.value)
    assert "Traceback" not in str(stopped.value)
