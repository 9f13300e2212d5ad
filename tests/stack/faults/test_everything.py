"""All services are stopped and started again; init processes."""

import time

from tests.stack.conftest import OWN_SERVICES, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import under_load

LONGEST_GRACE = 60
"""Seconds. The broker has the longest `stop_grace_period` in docker-compose.yml."""

KILLED = 128 + 9
"""Exit code of a service that did not stop in time. Others may also exit with a code: uvicorn re-raises SIGTERM."""


def test_all_services_removed_and_recreated_with_a_full_queue(stack: Stack, assert_all_done: AssertAllDone) -> None:
    stack.compose("stop", "worker")
    with under_load(each_second=100) as load:
        wait_until(lambda: len(load.ids) >= 200, 30, "200 in the queue")
    stack.compose("down")
    stack.up()
    assert_all_done(load.ids)


def test_all_services_stopped_with_running_tasks(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        long = [stack.enqueue("effect", seconds=30) for _ in range(2)]
        stack.wait_for_start(*long)
    began = time.monotonic()
    stack.compose("stop")
    assert time.monotonic() - began < LONGEST_GRACE
    for service in stack.services:
        assert faults.exit_code(service) != KILLED, service
    stack.up()
    assert_all_done(load.ids + long, started_again=2)


def test_process_1_is_an_init_without_a_shell(stack: Stack) -> None:
    for service in OWN_SERVICES:
        code = "import pathlib; print([p.read_text() for p in sorted(pathlib.Path('/proc').glob('[0-9]*/comm'))])"
        processes = stack.compose("exec", "-T", service, "python", "-c", code)
        assert "docker-init" in processes, processes
        assert "'sh" not in processes, processes
        assert "bash" not in processes, processes
