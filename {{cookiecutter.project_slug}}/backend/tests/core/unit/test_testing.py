from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app.core.tasks.testing import Enqueued, TaskRunner
from tests.core.tasks import (
    Item,
    core_add,
    core_async,
    core_enqueue,
    core_enqueue_later,
    core_flaky,
    core_price,
    core_slow,
)


def test_runner_returns_the_result() -> None:
    assert TaskRunner().run(core_add, 2, y=3) == 5


def test_runner_passes_arguments_and_result_through_json() -> None:
    item = Item(day=date(2026, 1, 31), price=Decimal("1.5"), key=UUID(int=1))
    result = TaskRunner().run(core_price, item=item, factor=Decimal(2))
    assert (result["day"], result["price"]) == ("2026-01-31", "3.0")
    with pytest.raises(ValidationError, match="factor"):
        TaskRunner().run(core_price, item=item)


def test_runner_records_progress() -> None:
    runner = TaskRunner()
    runner.run(core_slow, duration=0.01)
    assert [total for _, total in runner.reported] == [0.01]


def test_runner_counts_retries() -> None:
    assert TaskRunner(retries=2).run(core_flaky, failures=2) == 3
    with pytest.raises(ConnectionError, match="attempt 2"):
        TaskRunner(retries=1).run(core_flaky, failures=2)


def test_runner_records_enqueued_runs() -> None:
    runner = TaskRunner()
    run_id = runner.run(core_enqueue, x=4)
    assert UUID(run_id)
    assert runner.enqueued == [Enqueued("core_add", {"x": 4, "y": 1}, "core-tests")]


def test_runner_runs_async_tasks() -> None:
    runner = TaskRunner()
    runner.run(core_async, x=1)
    assert runner.reported == [(1, 2)]
    assert runner.enqueued == [Enqueued("core_add", {"x": 1, "y": 0}, "core-tests")]


def test_runner_leaves_a_given_session_to_its_owner() -> None:
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        assert session.execute(select(1)).scalar_one() == 1
        runner = TaskRunner(session)
        runner.run(core_enqueue, x=4)
        assert session.in_transaction()
        assert len(runner.enqueued) == 1
    engine.dispose()


def test_options_of_an_enqueued_run_are_recorded() -> None:
    runner = TaskRunner()
    runner.run(core_enqueue_later, seconds=60)
    (enqueued,) = runner.enqueued
    assert enqueued == Enqueued("core_add", {"x": 1, "y": 1}, "celery", timedelta(minutes=1), 9)
