import json
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.events.state import State

from app.celery_app import celery_app
from app.relay import message, sent_events
from app.tasks import REGISTRY


def test_the_message_is_the_one_celery_sends_but_asks_for_no_reply() -> None:
    row: Any = SimpleNamespace(id="some-id", name="slow", arguments={"duration": 1.5}, retries=2)
    ours = message(row)
    theirs = celery_app.amqp.create_task_message("some-id", "slow", kwargs={"duration": 1.5}, retries=2)
    assert ours.headers == theirs.headers
    assert (ours.content_type, ours.content_encoding) == ("application/json", "utf-8")
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert ours.correlation_id == "some-id"
    assert not ours.reply_to


def test_flower_hears_what_celery_would_tell_it() -> None:
    rows: Any = [SimpleNamespace(id=f"id-{n}", name="slow", arguments={"duration": n}, retries=0) for n in range(2)]
    events = json.loads(sent_events(rows).body)
    state: Any = State()
    for event in events:
        state.event({**event, "local_received": 0.0})
    seen = state.tasks["id-1"]
    assert (seen.state, seen.name, seen.kwargs) == ("PENDING", "slow", "{'duration': 1}")


def test_celery_knows_every_task() -> None:
    assert isinstance(celery_app, Celery)
    celery_app.loader.import_default_modules()
    assert set(REGISTRY) <= set(celery_app.tasks)
