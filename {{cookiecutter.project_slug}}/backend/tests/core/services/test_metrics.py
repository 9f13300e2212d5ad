"""Metrics of the running API."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert
from sqlalchemy.orm import Session

from app.core.tasks.history import OutboxAction, State, postpone, runs
from app.core.tasks.relay import POSTPONED
from app.metrics import OLDEST_UNPUBLISHED
from tests.conftest import Api
from tests.core.tasks import QUEUE, core_fail

pytestmark = pytest.mark.services


def read(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the value of each series by name and labels."""
    address = api.http.base_url.copy_with(port=9464)
    families = text_string_to_metric_families(httpx2.get(f"{address}/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def test_first_failure_is_counted(api: Api, enqueue: Callable[[Any], str]) -> None:
    def failures() -> float:
        return read(api).get(("app_runs_ended_10m", frozenset({("task", core_fail.name), ("state", "FAILURE")})), 0)

    before = failures()
    api.wait_for_end(enqueue(core_fail.enqueue()))
    assert failures() > before


def test_database_and_outbox_have_metrics(api: Api) -> None:
    series = {name: value for (name, labels), value in read(api).items() if not labels}
    assert series["app_database_up"] == 1
    assert 0 < series["app_database_connections"] < series["app_database_connections_limit"]
    assert series["app_database_size_bytes"] > 0
    assert 0 <= series["app_outbox_oldest_seconds"] < 60


@pytest.mark.parametrize(("state", "attempts"), [(State.PENDING, 0), (State.RETRY, 1)])
def test_refused_message_counts_as_unsent_since_it_was_due(session: Session, state: State, attempts: int) -> None:
    due = func.now() - timedelta(minutes=2)
    row = {
        "name": "core_add",
        "queue": QUEUE,
        "arguments": {},
        "outbox_action": OutboxAction.PUBLISH,
        "next_try_at": due,
    }
    session.execute(insert(runs).values(id=(run_id := str(uuid4())), state=state, attempts=attempts, **row))
    session.execute(postpone([run_id], POSTPONED))
    assert session.execute(OLDEST_UNPUBLISHED).scalar_one() >= 120  # not committed: no relay sees the row
