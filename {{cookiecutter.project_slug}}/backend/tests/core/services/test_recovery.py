"""Recovery of lost messages, by a relay in the test's own process."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, text
from sqlalchemy.orm import Session

from app.core import database
from app.core.tasks import relay
from app.core.tasks.history import State, requeue_lost, runs
from tests.conftest import Api
from tests.core.tasks import QUEUE

pytestmark = pytest.mark.services


@pytest.fixture
def lose(session: Session) -> Callable[[int], str]:
    """Return a function that inserts a run whose message was published long ago and lost."""

    def inserted(publish_count: int) -> str:
        task_id = str(uuid4())
        long_ago = func.now() - text("interval '1 day'")
        row = {"id": task_id, "name": "core_add", "queue": QUEUE, "arguments": {"x": 2, "y": 3}}
        published = {"accepted_at": long_ago, "published_at": long_ago, "publish_count": publish_count}
        session.execute(insert(runs).values(state=State.PENDING, **row, **published))
        session.commit()
        return task_id

    return inserted


def test_lost_message_is_published_again_up_to_the_limit(
    api: Api, lose: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    once, often = lose(1), lose(8)
    monkeypatch.setattr(relay, "RECOVERY_INTERVAL", 0.1)

    async def recover() -> None:
        async with relay.Relay().running():
            for task_id in (once, often):
                await asyncio.to_thread(api.wait_for_end, task_id)
        await database.async_engine().dispose()

    asyncio.run(recover())
    run = api.run(once)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 5, 1)
    run = api.run(often)
    assert (run["state"], run["error"]) == ("FAILURE", "lost: no worker took its message, sent 8 times")


@pytest.mark.parametrize(("publications", "is_lost"), [(1, True), (2, False)])
def test_queue_order_follows_from_messages_that_were_published_once(
    session: Session, publications: int, *, is_lost: bool
) -> None:
    """A run may start from the first of two messages, which is older than its last publication."""
    queue, minutes = f"core-tests-{uuid4()}", func.now() - text("interval '2 minutes'")
    rows = ((State.PENDING, 0, 1, minutes), (State.STARTED, 1, publications, func.now()))
    for state, attempts, count, published in rows:
        row: dict[str, Any] = {"id": str(uuid4()), "name": "core_add", "queue": queue, "arguments": {}, "state": state}
        row |= {"attempts": attempts, "publish_count": count, "published_at": published}
        session.execute(insert(runs).values(**row))  # not committed: no relay sees them
    statement = requeue_lost(queue, empty=False, waited=relay.LOST_AFTER, publish_limit=8, limit=10)
    assert bool(session.execute(statement).all()) is is_lost


def test_unroutable_message_does_not_block_others(api: Api, session: Session) -> None:
    lost, good = str(uuid4()), str(uuid4())
    for task_id, queue in ((lost, "no-such-queue"), (good, QUEUE)):
        row = {"id": task_id, "name": "core_add", "queue": queue, "arguments": {"x": 1, "y": 1}}
        session.execute(insert(runs).values(state=State.PENDING, outbox_action="publish", **row))
    session.commit()
    assert api.wait_for_end(good)["state"] == "SUCCESS"
    assert api.http.get("/health/ready").status_code == 200
    assert api.http.delete(f"/tasks/{lost}").json()["state"] == "REVOKED"
