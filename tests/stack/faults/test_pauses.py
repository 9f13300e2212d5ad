"""Each container is frozen or disconnected, for shorter and for longer than the timeouts.

The timeouts: the relay waits 5 s for the broker; PostgreSQL and its clients detect a vanished peer after 25 s; a worker
ends its tasks after 40 s without data from the broker; RabbitMQ closes a silent connection after 60 to 90 s.
"""

from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, celery_states, under_load

SECONDS = {"db": (12, 100), "worker": (12, 100), "backend": (12, 30), "redis": (12, 30), "flower": (12, 30)}
"""Durations by service: shorter and longer than every timeout that applies to it."""

ALLOWED: dict[str, set[str]] = {
    "db": {"503", "ReadTimeout"},
    "backend": {"ReadTimeout", "ConnectError", "ConnectTimeout", "RemoteProtocolError", "ReadError"},
}
"""Errors of requests during a fault, by service."""

FAULTS = {"frozen": faults.frozen, "cut": faults.cut_off}


@pytest.mark.parametrize(("service", "seconds"), [(service, each) for service in SECONDS for each in SECONDS[service]])
@pytest.mark.parametrize("fault", FAULTS)
def test_container_frozen_or_cut_off(
    stack: Stack, assert_all_done: AssertAllDone, service: str, fault: str, seconds: int
) -> None:
    if service not in stack.services:
        assert service == "redis"
        return
    with under_load(each_second=10, seconds=seconds + 40) as load:
        long = [stack.enqueue("effect", seconds=8) for _ in range(2)]
        stack.wait_for_start(*long)
        with FAULTS[fault](service):
            faults.hold(seconds)
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 20, 60, "requests to be accepted again")
    assert set(load.errors) <= ALLOWED.get(service, set()), load.errors
    interrupts = service in {"db", "worker"}
    assert_all_done(load.ids + long, started_again=None if interrupts else 0, sent_again=None, timeout=240)
    if service == "redis":
        assert celery_states(stack, load.ids + long) == {"SUCCESS"}
    wait_until(stack.is_healthy, 90, "every service to be healthy again")


def test_worker_cut_off_with_running_tasks(stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone) -> None:
    """Its sessions end after 25 s. Its processes have ended before RabbitMQ redelivers, after 60 to 90 s."""
    stack.up("--scale", "worker=2")
    try:
        ids = [stack.enqueue("effect", seconds=150) for _ in range(2)]
        stack.wait_for_start(*ids)
        runs: list[Any] = [stack.api.get(f"/tasks/{task_id}").json() for task_id in ids]
        worker = runs[0]["worker"].removeprefix("worker@")
        of_worker = [run["task_id"] for run in runs if run["worker"] == f"worker@{worker}"]
        old = {effect.owner.partition("@")[0] for effect in ledger.effects(of_worker)}
        with faults.cut_off_container(worker):
            wait_until(lambda: not old & faults.processes(worker), 55, "the processes with running tasks to end")
            assert {ledger.attempts(task_id) for task_id in of_worker} == {1}
            wait_until(lambda: {ledger.attempts(task_id) for task_id in of_worker} == {2}, 120, "the second attempts")
        account = assert_all_done(ids, started_again=2, sent_again=None, timeout=400)
        assert account.started_again == len(of_worker)
    finally:
        stack.up("--scale", "worker=1")
