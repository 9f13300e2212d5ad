"""Each container is frozen and cut off the network, for shorter and for longer than the timeouts.

The timeouts: the relay waits 5 s for the broker; PostgreSQL and its clients detect a vanished peer after 25 s; a worker
gives up a silent broker after 40 s; RabbitMQ closes a silent connection after 60 to 90 s.
"""

import time
from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import Settle
from tests.stack.faults.ledger import under_load

SECONDS = {"db": (12, 100), "worker": (12, 100), "backend": (12, 30), "redis": (12, 30), "flower": (12, 30)}
"""Durations by service: shorter and longer than every timeout that concerns it."""

ALLOWED: dict[str, set[str]] = {
    "db": {"503", "ReadTimeout"},
    "backend": {"ReadTimeout", "ConnectError", "ConnectTimeout", "RemoteProtocolError", "ReadError"},
}
"""Errors of the requests during a fault, by service."""

FAULTS = {"frozen": faults.frozen, "cut": faults.cut_off}


def last(seconds: float) -> None:
    """Return when so many seconds have passed."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 5, "the time to pass")


@pytest.mark.parametrize(("service", "seconds"), [(service, each) for service in SECONDS for each in SECONDS[service]])
@pytest.mark.parametrize("fault", FAULTS)
def test_container_frozen_or_cut_off(
    stack: Stack, nothing_is_lost: Settle, service: str, fault: str, seconds: int
) -> None:
    if service not in stack.services:
        assert service == "redis"
        return
    with under_load(each_second=10, seconds=seconds + 40) as load:
        long = [stack.accept("effect", seconds=8) for _ in range(2)]
        stack.wait_for_start(*long)
        with FAULTS[fault](service):
            last(seconds)
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 20, 60, "requests to be accepted again")
    assert set(load.refused) <= ALLOWED.get(service, set()), load.refused
    nothing_is_lost(load.ids + long, started_again=None, sent_again=None, timeout=240)
    wait_until(stack.is_healthy, 90, "every service to be healthy again")


def test_worker_cut_off_from_everything_with_tasks_running(stack: Stack, nothing_is_lost: Settle) -> None:
    """Its sessions end after 25 s, RabbitMQ redelivers after 60 to 90 s: its processes are gone by then."""
    stack.up("--scale", "worker=2")
    try:
        ids = [stack.accept("effect", seconds=150) for _ in range(2)]
        stack.wait_for_start(*ids)
        runs: list[Any] = [stack.api.get(f"/tasks/{task_id}").json() for task_id in ids]
        worker = runs[0]["worker"].removeprefix("worker@")
        with faults.cut_off_container(worker):
            last(110)
        nothing_is_lost(ids, started_again=2, sent_again=None, timeout=400)
    finally:
        stack.up("--scale", "worker=1")
