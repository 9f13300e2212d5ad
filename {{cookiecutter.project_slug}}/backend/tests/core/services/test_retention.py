"""Deletion of old runs, and messages of deleted runs."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery.backends.database.models import Task, TaskSet
from sqlalchemy import delete, func, insert, inspect, select, text
from sqlalchemy.orm import Session

from app.core import database
from app.core.settings import settings
from app.core.tasks import retention
from app.core.tasks.history import ENQUEUED_HEADER, State, runs
from tests.conftest import Api
from tests.core.tasks import QUEUE, core_add

pytestmark = pytest.mark.services

NAME = "core_retention"


def prune() -> bool:
    """Delete a batch of each state."""

    async def once() -> bool:
        try:
            return await retention.prune()
        finally:
            await database.async_engine().dispose()

    return asyncio.run(once())


def insert_ended(session: Session, state: State, days: int, count: int = 1) -> None:
    """Insert runs that were accepted `days` ago, and have ended at once if the state is final."""
    then = func.now() - text(f"interval '{days} days'")
    ended = {"ended_at": then} if state in {State.SUCCESS, State.FAILURE, State.REVOKED} else {}
    row = {"name": NAME, "queue": QUEUE, "arguments": {}, "state": state, "accepted_at": then, **ended}
    for _ in range(count):
        session.execute(insert(runs).values(id=str(uuid4()), **row))
    session.commit()


def left(session: Session) -> list[tuple[str, int]]:
    """Return the states and ages in days of the rows that are left."""
    age = func.extract("day", func.now() - runs.c.accepted_at)
    found = session.execute(select(runs.c.state, age).where(runs.c.name == NAME)).all()
    session.rollback()
    return sorted((str(state), int(days)) for state, days in found)


@pytest.fixture(autouse=True)
def empty(session: Session) -> None:
    session.execute(delete(runs).where(runs.c.name == NAME))
    session.commit()


@pytest.fixture
def results(session: Session) -> Iterator[Session]:
    """Create Celery's tables of results, unless it has done so."""
    metadata = vars(Task)["__table__"].metadata
    existed = inspect(session.connection()).has_table(Task.__tablename__)
    metadata.create_all(session.connection())
    session.commit()
    yield session
    if not existed:
        metadata.drop_all(session.connection())
    session.commit()


def test_expired_results_are_deleted(results: Session) -> None:
    """Celery deletes them in a periodic task of its beat process, which the project does not have."""
    for model, column in ((Task, "task_id"), (TaskSet, "taskset_id")):
        table: Any = model.__table__
        named = table.c[column].startswith(NAME)
        for hours in (23, 25):
            done = func.timezone("UTC", func.now() - timedelta(hours=hours))
            results.execute(insert(table).values({column: f"{NAME}-{hours}", "date_done": done}))
        results.commit()
        assert prune() is False
        assert results.scalars(select(table.c[column]).where(named)).all() == [f"{NAME}-23"]
        results.execute(delete(table).where(named))
        results.commit()


def test_old_runs_are_deleted_by_their_state(session: Session) -> None:
    for state, days in (("SUCCESS", 31), ("SUCCESS", 29), ("REVOKED", 31), ("FAILURE", 31), ("FAILURE", 91)):
        insert_ended(session, State(state), days)
    insert_ended(session, State.STARTED, 100)
    prune()
    assert left(session) == [("FAILURE", 31), ("STARTED", 100), ("SUCCESS", 29)]


def test_batches_are_limited(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(settings(), "history_days", 3)  # fewer than in the backend, which would delete the runs first
    insert_ended(session, State.SUCCESS, 10, count=3)
    assert prune()
    assert len(left(session)) == 1
    assert not prune()
    assert left(session) == []


def test_nothing_is_deleted_with_0_days(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("history_days", "history_failure_days"):
        monkeypatch.setattr(settings(), name, 0)
    insert_ended(session, State.SUCCESS, 400)
    insert_ended(session, State.FAILURE, 400)
    assert not prune()
    assert len(left(session)) == 2


def test_message_of_a_deleted_run_starts_nothing(api: Api, enqueue: Callable[[Any], str]) -> None:
    deleted = core_add.apply_async((1, 1), headers={ENQUEUED_HEADER: True}).id
    sent = core_add.apply_async((1, 1)).id
    assert api.wait_for_end(sent)["state"] == "SUCCESS"
    assert api.wait_for_end(enqueue(core_add.enqueue(x=1, y=1)))["state"] == "SUCCESS"
    assert api.http.get(f"/tasks/{deleted}").status_code == 404
