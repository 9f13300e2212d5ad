"""Paused queues."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from app.core import database
from app.core.tasks.attempt import Attempt, ClaimLostError
from app.core.tasks.history import HELD, paused_queues, runs
from app.main import create_app
from tests.conftest import Api
from tests.core.tasks import QUEUE, core_add, core_slow

pytestmark = pytest.mark.services

Enqueue = Callable[[Any], str]


@pytest.fixture
def own() -> Iterator[TestClient]:
    """An API process that has the queue of these tests, which is resumed in the end."""
    with TestClient(create_app(), "http://localhost:8060") as client:
        yield client
        client.post(f"/queues/{QUEUE}/resume")


def wait_until(session: Session, condition: ColumnElement[bool], ids: list[str]) -> None:
    """Wait until all runs meet a condition."""
    deadline = time.monotonic() + 30
    while session.scalar(select(func.count()).where(condition, runs.c.id.in_(ids))) != len(ids):
        assert time.monotonic() < deadline
        session.rollback()
        time.sleep(0.1)
    session.rollback()


def queue(client: TestClient) -> dict[str, Any]:
    """Return the state of the queue of these tests."""
    found: dict[str, Any] = {each["name"]: each for each in client.get("/queues").json()}[QUEUE]
    return found


def test_no_run_of_a_paused_queue_starts(api: Api, own: TestClient, session: Session, enqueue: Enqueue) -> None:
    before = queue(own)["waiting"]  # of other tests
    running = enqueue(core_slow.enqueue(duration=10))
    api.wait_for(running, lambda run: run["state"] == "STARTED")
    response = own.post(f"/queues/{QUEUE}/pause")
    assert (response.status_code, response.json()["name"]) == (200, QUEUE)
    assert response.json()["paused_at"] == own.post(f"/queues/{QUEUE}/pause").json()["paused_at"]
    ids = [enqueue(core_add.enqueue(x=n, y=0)) for n in range(20)]
    sent = core_add.delay(x=1, y=1).id  # has no row before the worker receives it
    assert api.wait_for(sent, lambda run: run["state"] == "PENDING")["attempts"] == 0
    assert api.wait_for_end(running)["state"] == "SUCCESS"
    assert (queue(own)["waiting"] - before, queue(own)["running"]) == (len(ids) + 1, 0)
    assert {api.run(each)["attempts"] for each in ids} == {0}
    assert own.post(f"/queues/{QUEUE}/resume").json()["paused_at"] is None
    for each in ids:
        api.wait_for_end(each)
    assert api.wait_for_end(sent)["result"] == 2
    assert [api.run(each)["attempts"] for each in [*ids, sent]] == [1] * (len(ids) + 1)
    found = session.execute(select(runs.c.owner, runs.c.id).where(runs.c.id.in_(ids)).order_by(runs.c.started_at)).all()
    for owner in {row.owner for row in found}:
        numbers = [ids.index(row.id) for row in found if row.owner == owner]
        assert numbers == sorted(numbers), "each process executes its runs in the order of the queue"


def test_message_that_was_published_before_the_pause_does_not_start(
    api: Api, own: TestClient, session: Session, enqueue: Enqueue
) -> None:
    running = [enqueue(core_slow.enqueue(duration=60)) for _ in range(2)]
    for each in running:
        api.wait_for(each, lambda run: run["state"] == "STARTED")
    ids = [session.execute(core_add.enqueue(x=n, y=0)).scalar_one() for n in range(20)]
    session.commit()
    wait_until(session, runs.c.published_at.is_not(None), ids)
    own.post(f"/queues/{QUEUE}/pause")
    for each in running:
        assert api.http.delete(f"/tasks/{each}").status_code == 200
    probe = core_add.delay(x=0, y=0).id  # is behind all others
    api.wait_for(probe, lambda run: run["state"] == "PENDING")
    assert {(api.run(each)["state"], api.run(each)["attempts"]) for each in ids} == {("PENDING", 0)}
    own.post(f"/queues/{QUEUE}/resume")
    for each in [*ids, probe]:
        assert api.wait_for_end(each)["state"] == "SUCCESS"


def test_run_of_a_paused_queue_is_revoked_and_retried(
    api: Api, own: TestClient, session: Session, enqueue: Enqueue
) -> None:
    ended = enqueue(core_add.enqueue(x=1, y=1))
    api.wait_for_end(ended)
    own.post(f"/queues/{QUEUE}/pause")
    revoked = enqueue(core_add.enqueue(x=1, y=1))
    assert api.http.delete(f"/tasks/{revoked}").json()["state"] == "REVOKED"
    assert api.http.post(f"/tasks/{ended}/retry").status_code == 202
    wait_until(session, runs.c.publish_at == HELD, [ended])
    assert api.run(ended)["state"] == "PENDING"
    own.post(f"/queues/{QUEUE}/resume")
    assert api.wait_for_end(ended)["attempts"] == 2
    assert api.run(revoked)["attempts"] == 0


class Resumed(Attempt):
    """An attempt whose queue is resumed between its two statements."""

    def _hold(self, values: Mapping[str, Any], *, enqueued: bool) -> bool:
        with database.engine().begin() as connection:
            connection.execute(delete(paused_queues).where(paused_queues.c.name == QUEUE))
        return super()._hold(values, enqueued=enqueued)


MESSAGE: dict[str, Any] = {"name": "core_add", "queue": QUEUE, "arguments": {"x": 1, "y": 1}, "message": None}


def test_message_starts_if_its_queue_is_resumed_meanwhile(own: TestClient) -> None:
    own.post(f"/queues/{QUEUE}/pause")
    attempt = Resumed(str(uuid4()), 0, "test")
    attempt.claim(redelivered=False, enqueued=False, limit=timedelta(minutes=1), **MESSAGE)
    assert attempt.number == 1
    attempt.succeed(2)


def test_message_of_a_deleted_run_creates_no_run_in_a_paused_queue(own: TestClient) -> None:
    own.post(f"/queues/{QUEUE}/pause")
    attempt = Attempt(str(uuid4()), 0, "test")
    with pytest.raises(ClaimLostError) as lost:
        attempt.claim(redelivered=False, enqueued=True, limit=timedelta(minutes=1), **MESSAGE)
    assert lost.value.row is None
    assert attempt.row() is None


def test_unknown_queue_is_not_found(own: TestClient) -> None:
    for action in ("pause", "resume"):
        assert own.post(f"/queues/unknown/{action}").status_code == 404


def test_runs_are_found_by_an_argument(api: Api, enqueue: Enqueue) -> None:
    x = time.time()
    ended, waiting = enqueue(core_add.enqueue(x=x, y=1)), enqueue(core_add.options(delay=60).enqueue(x=x, y=2))
    api.wait_for_end(ended)
    found = [run["task_id"] for run in api.history(argument=f"x={x!r}")]
    assert found == [waiting, ended]
    assert [run["task_id"] for run in api.history(argument=[f"x={x!r}", "y=1"])] == [ended]
    assert api.history(argument=f"x={x!r}", state="FAILURE") == []
    assert api.history(argument=f"x={x!r}", until=api.run(ended)["accepted_at"]) == []
    assert api.http.get("/tasks/history", params={"argument": "x"}).status_code == 422
    for odd in ("NaN", "12e4567", "[" * 5000, '"\\u0000"', "[]", "{}", "null"):
        assert api.history(argument=[f"x={x!r}", f"y={odd}"]) == [], odd
    assert api.http.delete(f"/tasks/{waiting}").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda attempt: attempt.succeed(2),
        lambda attempt: attempt.fail("error"),
        lambda attempt: attempt.retry("error", "", 1),
        lambda attempt: attempt.progress(1, 2),
    ],
)
def test_replaced_attempt_cannot_change_its_run(session: Session, change: Callable[[Attempt], None]) -> None:
    attempt = Attempt(str(uuid4()), 0, "test")
    attempt.claim(redelivered=False, enqueued=False, limit=timedelta(minutes=1), **MESSAGE)
    this = runs.c.id == attempt.id
    session.execute(update(runs).where(this).values(attempts=2))  # as the claim of another process does
    session.commit()
    with pytest.raises(ClaimLostError):
        change(attempt)
    assert session.execute(select(runs.c.state, runs.c.attempts).where(this)).one() == ("STARTED", 2)
    session.execute(delete(runs).where(this))
    session.commit()
