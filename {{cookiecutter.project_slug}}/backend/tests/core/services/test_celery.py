"""Tasks that are sent with Celery's own methods, without the outbox."""

from decimal import Decimal
from uuid import uuid4

import pytest
from celery import chain

from app.core.celery import celery_app
from tests.conftest import Api
from tests.core.tasks import QUEUE, Item, core_add, core_price, core_slow

pytestmark = pytest.mark.services


def test_sender_receives_the_result(api: Api) -> None:
    sent = core_add.delay(2, 3)
    assert sent.get(timeout=30) == 5
    run = api.wait_for_end(sent.id)
    assert (run["name"], run["arguments"], run["result"]) == ("core_add", {"x": 2, "y": 3}, 5)


def test_rich_types_survive_a_chain(api: Api) -> None:
    item = Item.model_validate({"day": "2026-01-31", "price": "1.5", "key": str(uuid4())})
    sent = chain(core_price.s(item, factor=Decimal(2)), core_price.s(factor=Decimal(3))).apply_async()
    assert Item.model_validate(sent.get(timeout=30)).price == Decimal(9)
    assert api.wait_for_end(sent.id)["arguments"]["item"]["price"] == "3.0"


def test_invalid_arguments_fail_in_the_history(api: Api) -> None:
    sent = celery_app.send_task("core_add", kwargs={"x": "two", "y": 1}, queue=QUEUE)
    run = api.wait_for_end(sent.id)
    assert run["state"] == "FAILURE"
    assert "ValidationError" in run["error"]


def test_arguments_of_another_version_are_retried(api: Api) -> None:
    sent = celery_app.send_task("core_add", kwargs={"x": 1}, queue=QUEUE)
    run = api.wait_for(sent.id, lambda run: run["state"] == "RETRY")
    assert (run["attempts"], "ValidationError" in run["error"]) == (1, True)
    api.http.delete(f"/tasks/{sent.id}")


def test_message_delivered_twice_is_executed_once(api: Api) -> None:
    task_id = str(uuid4())
    for _ in range(2):
        celery_app.send_task("core_slow", kwargs={"duration": 1}, task_id=task_id, queue=QUEUE)
    marker = core_slow.delay(duration=2)
    assert api.wait_for_end(marker.id)["state"] == "SUCCESS"
    run = api.wait_for_end(task_id)
    assert (run["state"], run["attempts"]) == ("SUCCESS", 1)
