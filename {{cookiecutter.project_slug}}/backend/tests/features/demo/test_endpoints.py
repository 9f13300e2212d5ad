import pytest

from tests.conftest import Api

pytestmark = pytest.mark.services


def test_wait_returns_the_result(api: Api) -> None:
    response = api.http.post("/tasks/add", params={"x": 2, "y": 3, "wait": 30})
    assert (response.status_code, response.json()["result"]) == (200, 5)


def test_short_wait_returns_the_id(api: Api) -> None:
    response = api.http.post("/tasks/slow", params={"duration": 2, "wait": 0.1})
    assert response.status_code == 202
    assert api.wait_for_end(response.json()["task_id"])["result"] == 2


def test_failing_task_keeps_its_error(api: Api) -> None:
    run = api.wait_for_end(api.enqueue("fail", reason="on purpose"))
    assert (run["state"], run["error"], run["arguments"]) == (
        "FAILURE",
        "ValueError: on purpose",
        {"reason": "on purpose"},
    )


def test_flaky_task_succeeds_after_retries(api: Api) -> None:
    run = api.wait_for_end(api.enqueue("flaky", failures=1))
    assert (run["state"], run["attempts"]) == ("SUCCESS", 2)


def test_invalid_request_stores_nothing(api: Api) -> None:
    before = len(api.history(name="slow"))
    assert api.http.post("/tasks/slow", params={"duration": "long"}).status_code == 422
    assert len(api.history(name="slow")) == before
