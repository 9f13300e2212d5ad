"""Idempotency keys of requests, and keys of which one run is unfinished at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.core.api import operations
from app.main import create_app
from tests.conftest import Api
from tests.core.tasks import core_fail, core_once, core_slow

pytestmark = pytest.mark.services

Enqueue = Callable[[Any], str]
REQUESTS = 200


@pytest.fixture
def own() -> Iterator[TestClient]:
    """An API process that has the tasks of these tests."""
    with TestClient(create_app(), "http://localhost:8060") as client:
        yield client


def test_requests_with_one_key_have_one_run(api: Api, own: TestClient) -> None:
    headers = {"Idempotency-Key": str(uuid4())}

    def post(_: int) -> tuple[int, str]:
        response = own.post("/tasks/core_add", params={"x": 2, "y": 3.0}, headers=headers)
        return response.status_code, response.json()["task_id"]

    with ThreadPoolExecutor(20) as threads:
        answers = set(threads.map(post, range(REQUESTS)))
    ((status, task_id),) = answers
    assert status == 202
    run = api.wait_for_end(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 5, 1)
    response = own.post("/tasks/core_add", params={"x": 2, "y": 3, "wait": 5}, headers=headers)
    assert (response.status_code, response.json()["task_id"]) == (200, task_id)


def test_key_with_other_arguments_is_rejected(api: Api, own: TestClient) -> None:
    key = str(uuid4())
    first = own.post("/tasks/core_add", params={"x": 1, "y": 1}, headers={"Idempotency-Key": key}).json()["task_id"]
    response = own.post("/tasks/core_add", params={"x": 1, "y": 2}, headers={"Idempotency-Key": key})
    assert response.status_code == 422
    assert "other arguments" in response.json()["detail"]
    assert api.wait_for_end(first)["arguments"] == {"x": 1, "y": 1}
    other_task = own.post("/tasks/core_fail", headers={"Idempotency-Key": key}).json()["task_id"]
    assert other_task != first


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_invalid_key_is_rejected(own: TestClient, key: str) -> None:
    response = own.post("/tasks/core_add", params={"x": 1, "y": 1}, headers={"Idempotency-Key": key})
    assert response.status_code == 422
    assert "Idempotency-Key" in response.json()["detail"]


def test_body_takes_an_idempotency_key(api: Api, own: TestClient) -> None:
    item = {"day": "2026-01-31", "price": "1.50", "key": str(uuid4())}
    headers = {"Idempotency-Key": str(uuid4()).ljust(255, "x")}
    body = {"item": item, "factor": "2"}
    ids = {own.post("/tasks/core_price", json=body, headers=headers).json()["task_id"] for _ in range(3)}
    assert len(ids) == 1
    assert api.wait_for_end(ids.pop())["state"] == "SUCCESS"


def test_one_run_of_a_key_is_unfinished(api: Api, session: Session, enqueue: Enqueue) -> None:
    slow = core_slow.options(key=f"customer {uuid4()}")
    first = enqueue(slow.enqueue(duration=30))
    assert session.execute(slow.enqueue(duration=1)).scalar_one_or_none() is None
    assert session.execute(core_slow.options(key="another").enqueue(duration=0)).scalar_one_or_none()
    session.rollback()
    assert api.http.delete(f"/tasks/{first}").status_code == 200
    assert session.execute(slow.enqueue(duration=1)).scalar_one() != first
    session.rollback()
    second = enqueue(slow.enqueue(duration=0))
    assert api.wait_for_end(second)["state"] == "SUCCESS"


def test_waiting_transaction_of_a_key_enqueues_after_a_rollback(session: Session) -> None:
    slow = core_slow.options(key=str(uuid4()))
    assert session.execute(slow.enqueue(duration=0)).scalar_one()
    with ThreadPoolExecutor(1) as threads, Session(session.get_bind()) as other:
        waiting = threads.submit(lambda: other.execute(slow.enqueue(duration=0)).scalar_one_or_none())
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        session.rollback()
        assert waiting.result(timeout=10)
        other.rollback()


def test_repeated_request_is_recognized_after_a_retry_with_changed_arguments(api: Api, own: TestClient) -> None:
    headers, params = {"Idempotency-Key": str(uuid4())}, {"x": 1, "y": 1}
    first = own.post("/tasks/core_add", params=params, headers=headers).json()["task_id"]
    api.wait_for_end(first)
    assert own.post(f"/tasks/{first}/retry", json={"arguments": {"y": 2}}).status_code == 202
    assert api.wait_for_end(first)["result"] == 3
    assert own.post("/tasks/core_add", params=params, headers=headers).json()["task_id"] == first
    assert own.post("/tasks/core_add", params={"x": 1, "y": 2}, headers=headers).status_code == 422


def test_only_the_newest_run_of_a_key_is_retried(api: Api, enqueue: Enqueue) -> None:
    key = str(uuid4())
    failed = [enqueue(core_fail.options(key=key).enqueue())]
    api.wait_for_end(failed[0])
    failed.append(enqueue(core_fail.options(key=key).enqueue()))
    api.wait_for_end(failed[1])
    response = api.http.post(f"/tasks/{failed[0]}/retry")
    assert response.status_code == 409
    assert "has a key, of which another run is newer" in response.json()["detail"]
    assert api.http.post(f"/tasks/{failed[1]}/retry").status_code == 202
    assert api.wait_for_end(failed[1])["attempts"] == 2


def test_filter_retries_the_newest_run_of_each_key(
    api: Api, own: TestClient, enqueue: Enqueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "LIMIT", 2)
    key, ids = str(uuid4()), []
    for name in (key, key, key, None):
        ids.append(enqueue(core_once.options(key=name).enqueue()))
        api.wait_for_end(ids[-1])
    filters = {"state": "FAILURE", "name": "core_once", "since": api.run(ids[0])["accepted_at"]}
    assert own.post("/tasks/retry", params=filters).json() == {"changed": 2, "remaining": 0}
    assert [api.wait_for_end(each)["attempts"] for each in ids] == [1, 1, 2, 2]


def test_retry_is_rejected_while_a_transaction_enqueues_its_key(
    api: Api, own: TestClient, session: Session, enqueue: Enqueue
) -> None:
    options = core_fail.options(key=str(uuid4()))
    failed = enqueue(options.enqueue())
    api.wait_for_end(failed)
    assert session.execute(options.enqueue()).scalar_one()
    with ThreadPoolExecutor(1) as threads:
        retry = threads.submit(own.post, f"/tasks/{failed}/retry")
        with pytest.raises(TimeoutError):
            retry.result(timeout=1)
        session.commit()
        assert retry.result(timeout=10).status_code == 409
