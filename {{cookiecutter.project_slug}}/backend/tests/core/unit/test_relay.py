import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery.events.state import State as FlowerState
from psycopg.errors import CannotConnectNow
from sqlalchemy.exc import OperationalError

from app.core.celery import celery_app
from app.core.tasks import relay as relay_module
from app.core.tasks.history import ENQUEUED_HEADER, PARKED_HEADER, State
from app.core.tasks.relay import MESSAGE_LIMIT, Relay, message, sent_events

UNAVAILABLE = OperationalError("", {}, CannotConnectNow())


def row(number: int, retries: int = 0, **fields: Any) -> Any:
    run = {"id": f"id-{number}", "name": "core_slow", "queue": "core-tests", "retries": retries, "attempts": 0}
    return SimpleNamespace(**{**run, "arguments": {"duration": number}, "state": "PENDING", "message": None, **fields})


def test_message_equals_celerys_own_without_a_reply_address() -> None:
    ours = message(row(1, retries=2))
    theirs = celery_app.amqp.create_task_message("id-1", "core_slow", kwargs={"duration": 1}, retries=2)
    assert ours.headers == {**theirs.headers, ENQUEUED_HEADER: True}
    assert (ours.content_type, ours.content_encoding) == ("application/json", "utf-8")
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert ours.correlation_id == "id-1"
    assert not ours.reply_to


def test_message_keeps_the_workflow_of_an_earlier_one() -> None:
    kept = {
        "chain": [{"task": "core_add"}],
        "reply_to": "sender",
        "group_id": "group-id",
        "callbacks": [{"task": "core_add"}],
    }
    ours = message(row(1, message=kept))
    (_, _, embedded) = json.loads(ours.body)
    assert (embedded["chain"], embedded["callbacks"]) == (kept["chain"], kept["callbacks"])
    assert ours.headers["group"] == "group-id"
    assert ours.reply_to == "sender"


def test_message_of_a_running_attempt_is_marked_as_parked() -> None:
    assert PARKED_HEADER in message(row(1, state=State.STARTED)).headers
    assert PARKED_HEADER not in message(row(1, state=State.RETRY)).headers


def test_message_above_the_limit_of_the_broker_is_an_error() -> None:
    with pytest.raises(ValueError, match="arguments: 1677"):
        message(row(1, arguments={"document": "x" * MESSAGE_LIMIT}))


def test_sent_events_make_runs_pending_in_flower() -> None:
    events = json.loads(sent_events([row(1), row(2)]).body)
    state: Any = FlowerState()
    for event in events:
        state.event({**event, "local_received": 0.0})
    seen = state.tasks["id-2"]
    assert (seen.state, seen.name, seen.kwargs, seen.routing_key) == (
        "PENDING",
        "core_slow",
        "{'duration': 2}",
        "core-tests",
    )


class Failing(Relay):
    """A relay that finds more held runs to release, and then no database."""

    attempts = 0

    async def _publish_batch(self, *_: Any) -> int:
        self.attempts += 1
        if self.attempts > 1:
            raise UNAVAILABLE
        return 0

    async def _release(self) -> bool:
        return True

    async def _recover(self, _channel: Any) -> None:
        pass


def serve(relay: Relay, seconds: float) -> None:
    """Let a relay work for some time, without a broker."""
    channel: Any = None

    async def limited() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(relay._serve(channel), seconds)

    asyncio.run(limited())


class Busy(Relay):
    """A relay that always has due rows."""

    recovered = 0

    async def _publish_batch(self, *_: Any) -> int:
        await asyncio.sleep(0.001)
        return 1

    async def _release(self) -> bool:
        return False

    async def _recover(self, _channel: Any) -> None:
        self.recovered += 1
        if self.recovered > 1:
            raise TimeoutError  # which `serve` expects


def test_relay_searches_for_lost_messages_under_sustained_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "RECOVERY_INTERVAL", 0.05)
    relay = Busy()
    serve(relay, 30)
    assert relay.recovered > 1


def test_relay_pauses_without_a_database_while_a_queue_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "RECOVERY_INTERVAL", 0.0)
    relay = Failing()
    serve(relay, 0.3)  # less than the pause
    assert relay.attempts == 2
