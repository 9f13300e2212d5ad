"""All services are stopped, and started again."""

import time

from tests.stack.conftest import OURS, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import Settle
from tests.stack.faults.ledger import under_load

LONGEST_GRACE = 60
"""Seconds: the longest `stop_grace_period` in docker-compose.yml, the broker's."""

KILLED = 128 + 9
"""The exit code of what did not stop in time. Not every other is 0: uvicorn passes SIGTERM on to itself at the end."""


def test_down_and_up_with_a_full_queue(stack: Stack, nothing_is_lost: Settle) -> None:
    stack.compose("stop", "worker")
    with under_load(each_second=100) as load:
        wait_until(lambda: len(load.ids) >= 200, 30, "200 in the queue")
    stack.compose("down")
    stack.up()
    nothing_is_lost(load.ids)


def test_stopped_with_tasks_at_work(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        long = [stack.accept("effect", seconds=30) for _ in range(2)]
        stack.wait_for_start(*long)
    began = time.monotonic()
    stack.compose("stop")
    assert time.monotonic() - began < LONGEST_GRACE
    for service in stack.services:
        assert faults.exit_code(service) != KILLED, service
    stack.up()
    nothing_is_lost(load.ids + long, started_again=2)


def test_process_1_is_an_init_and_no_shell_stands_between(stack: Stack) -> None:
    for service in OURS:
        code = "import pathlib; print([p.read_text() for p in sorted(pathlib.Path('/proc').glob('[0-9]*/comm'))])"
        processes = stack.compose("exec", "-T", service, "python", "-c", code)
        assert "docker-init" in processes, processes
        assert "'sh" not in processes, processes
        assert "bash" not in processes, processes
