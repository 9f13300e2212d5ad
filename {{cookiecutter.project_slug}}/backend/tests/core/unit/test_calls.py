"""Direct calls of tasks, which behave as in other Celery projects."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.core.celery import celery_app
from tests.core.tasks import Item, core_add, core_async_slow, core_flaky, core_price

ITEM = Item.model_validate({"day": "2026-01-31", "price": "1.5", "key": "00000000-0000-0000-0000-000000000001"})


def test_direct_call_runs_the_function() -> None:
    assert core_add(2, y=3) == 5
    changed: Any = core_price(ITEM, factor=Decimal(2))
    assert changed == ITEM.model_copy(update={"price": Decimal("3.0")})
    with pytest.raises(ConnectionError, match="attempt 1"):
        core_flaky(failures=1)


def test_direct_call_of_an_async_task_returns_a_coroutine() -> None:
    called = core_async_slow()
    assert asyncio.iscoroutine(called)
    called.close()


def test_signature_expresses_models_as_json() -> None:
    signature: Any = core_price.s(ITEM, factor=Decimal(2))
    assert signature.args[0]["price"] == "1.5"
    assert signature.kwargs == {"factor": "2"}


def test_message_expresses_models_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(celery_app, "send_task", lambda _name, args, kwargs, **_options: sent.append((args, kwargs)))
    core_price.delay(ITEM, factor=Decimal(2))
    ((args, kwargs),) = sent
    assert args[0]["price"] == "1.5"
    assert kwargs == {"factor": "2"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"delay": -1}, "delay: "),
        ({"delay": timedelta(days=367)}, "delay: "),
        ({"delay": float("nan")}, "delay: |NaN"),
        ({"queue": "nowhere"}, 'queue: unknown queue "nowhere"'),
        ({"priority": 10}, "priority: 10 is invalid"),
        ({"key": ""}, "key: 0 characters are invalid"),
        ({"key": "x" * 256}, "key: 256 characters are invalid"),
    ],
)
def test_invalid_option_is_rejected_by_name(options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        core_add.options(**options)
