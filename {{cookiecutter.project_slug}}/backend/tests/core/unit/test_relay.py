import json
from types import SimpleNamespace
from typing import Any

from celery.events.state import State

from app.core.celery import celery_app
from app.core.tasks.relay import message, sent_events


def row(number: int, retries: int = 0) -> Any:
    arguments = {"duration": number}
    return SimpleNamespace(
        id=f"id-{number}", name="core_slow", queue="core-tests", arguments=arguments, retries=retries
    )


def test_message_equals_celerys_own_without_a_reply_address() -> None:
    ours = message(row(1, retries=2))
    theirs = celery_app.amqp.create_task_message("id-1", "core_slow", kwargs={"duration": 1}, retries=2)
    assert ours.headers == theirs.headers
    assert (ours.content_type, ours.content_encoding) == ("application/json", "utf-8")
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert ours.correlation_id == "id-1"
    assert not ours.reply_to


def test_sent_events_make_runs_pending_in_flower() -> None:
    events = json.loads(sent_events([row(1), row(2)]).body)
    state: Any = State()
    for event in events:
        state.event({**event, "local_received": 0.0})
    seen = state.tasks["id-2"]
    assert (seen.state, seen.name, seen.kwargs, seen.routing_key) == (
        "PENDING",
        "core_slow",
        "{'duration': 2}",
        "core-tests",
    )
