from itertools import count
from typing import Any

import pytest

from app.core.celery import celery_app
from app.core.monitor.events import ObservedEvents

NOW = 1_700_000_000.0
CLOCK = count(1)


@pytest.fixture
def events() -> ObservedEvents:
    return ObservedEvents(celery_app, None, max_tasks_in_memory=10)


def apply(events: ObservedEvents, kind: str, **fields: Any) -> None:
    common = {"type": kind, "hostname": "worker@a", "timestamp": NOW, "local_received": NOW, "pid": 1, "utcoffset": 0}
    events._apply({**common, "clock": next(CLOCK), **fields})


def active(events: ObservedEvents) -> int:
    total: int = events.stats.report(NOW, 5, {"worker@a"})["total"]["active"]
    return total


def test_task_is_active_until_it_ends(events: ObservedEvents) -> None:
    apply(events, "task-received", uuid="1", name="add")
    apply(events, "task-started", uuid="1")
    assert active(events) == 1
    apply(events, "task-succeeded", uuid="1", result="5", runtime=0.1)
    assert active(events) == 0


def test_heartbeat_of_idle_worker_clears_active_tasks_when_an_event_was_lost(events: ObservedEvents) -> None:
    apply(events, "task-started", uuid="1")
    apply(events, "worker-heartbeat", active=1)
    assert active(events) == 1
    apply(events, "worker-heartbeat", active=0)
    assert active(events) == 0


def test_ended_task_is_counted_once_when_its_message_is_redelivered(events: ObservedEvents) -> None:
    for _ in range(2):
        apply(events, "task-received", uuid="1", name="add")
        apply(events, "task-started", uuid="1")
        apply(events, "task-succeeded", uuid="1", result="5", runtime=0.1)
    assert events.stats.report(NOW + 5, 5, {"worker@a"})["total"]["succeeded"] == 1
    apply(events, "task-started", uuid="1")
    assert active(events) == 0


def test_task_is_counted_again_when_an_operator_retries_it(events: ObservedEvents) -> None:
    apply(events, "task-started", uuid="1", name="add")
    apply(events, "task-failed", uuid="1", exception="ValueError()")
    apply(events, "task-sent", uuid="1", name="add", attempts=1, timestamp=NOW + 1)
    assert events.state.tasks["1"].state == "PENDING"
    apply(events, "task-started", uuid="1", timestamp=NOW + 2)
    apply(events, "task-succeeded", uuid="1", result="5", runtime=0.1, timestamp=NOW + 3)
    apply(events, "task-sent", uuid="1", name="add", attempts=1, timestamp=NOW + 1)  # late
    assert events.state.tasks["1"].state == "SUCCESS"
    total = events.stats.report(NOW + 5, 5, {"worker@a"})["total"]
    assert (total["failed"], total["succeeded"], total["active"]) == (1, 1, 0)


def test_active_tasks_are_dropped_when_the_worker_has_no_recent_heartbeat(events: ObservedEvents) -> None:
    apply(events, "worker-heartbeat", active=1)  # years ago
    apply(events, "task-started", uuid="1")
    assert events.alive() == set()
    assert active(events) == 0
