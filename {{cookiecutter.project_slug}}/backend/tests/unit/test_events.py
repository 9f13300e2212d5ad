from itertools import count
from typing import Any

import pytest

from app.celery_app import celery_app
from app.monitor.events import ObservedEvents

NOW = 1_700_000_000.0
CLOCK = count(1)


@pytest.fixture
def events() -> ObservedEvents:
    return ObservedEvents(celery_app, None, max_tasks_in_memory=10)


def tell(events: ObservedEvents, kind: str, **fields: Any) -> None:
    common = {"type": kind, "hostname": "worker@a", "timestamp": NOW, "local_received": NOW, "pid": 1, "utcoffset": 0}
    events._apply({**common, "clock": next(CLOCK), **fields})


def active(events: ObservedEvents) -> int:
    total: int = events.figures.report(NOW, 5, {"worker@a"})["total"]["active"]
    return total


def test_what_runs_is_active_until_it_ends(events: ObservedEvents) -> None:
    tell(events, "task-received", uuid="1", name="add")
    tell(events, "task-started", uuid="1")
    assert active(events) == 1
    tell(events, "task-succeeded", uuid="1", result="5", runtime=0.1)
    assert active(events) == 0


def test_a_heartbeat_mends_what_an_event_that_got_lost_has_left(events: ObservedEvents) -> None:
    tell(events, "task-started", uuid="1")
    tell(events, "worker-heartbeat", active=1)
    assert active(events) == 1
    tell(events, "worker-heartbeat", active=0)
    assert active(events) == 0


def test_a_run_that_has_ended_is_counted_once(events: ObservedEvents) -> None:
    """Its message may be delivered again; the worker refuses it then, or repeats its outcome."""
    for _ in range(2):
        tell(events, "task-received", uuid="1", name="add")
        tell(events, "task-started", uuid="1")
        tell(events, "task-succeeded", uuid="1", result="5", runtime=0.1)
    assert events.figures.report(NOW + 5, 5, {"worker@a"})["total"]["succeeded"] == 1
    tell(events, "task-started", uuid="1")
    assert active(events) == 0


def test_nothing_is_at_work_on_a_worker_that_stays_silent(events: ObservedEvents) -> None:
    tell(events, "worker-heartbeat", active=1)  # years ago
    tell(events, "task-started", uuid="1")
    assert events.alive() == set()
    assert active(events) == 0
