import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery.events.state import State as FlowerState

from app.core.celery import celery_app
from app.core.tasks.history import ENQUEUED_HEADER, PARKED_HEADER, State
from app.core.tasks.relay import MESSAGE_LIMIT, message, sent_events


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
