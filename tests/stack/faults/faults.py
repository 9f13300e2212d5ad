"""Faults, as functions and context managers.

A crash kills the main process from outside the container, so that the restart policy applies.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from typing import Literal

from tests.stack.conftest import SLUG, Stack, wait_until

KILLER = "python:3.13-slim"
"""Any image with a shell, to kill processes of other containers."""


def docker(*arguments: str) -> str:
    """Run docker; return its output."""
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def container(service: str, number: int = 1) -> str:
    """Return the name of a service's container."""
    return f"{SLUG}-{service}-{number}"


def started_at(service: str, number: int = 1) -> str:
    """Return the time of the container's last start."""
    return docker("inspect", "--format", "{{.State.StartedAt}}", container(service, number))


def exit_code(service: str) -> int:
    """Return the exit code of a stopped service."""
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", container(service)))


def crash(service: str, number: int = 1) -> None:
    """Kill the main process, and wait until Docker has restarted the service and it is healthy."""
    before = started_at(service, number)
    kill(service, number)

    def is_back() -> bool:
        status = docker("inspect", "--format", "{{.State.Health.Status}}", container(service, number))
        return started_at(service, number) != before and status == "healthy"

    wait_until(is_back, 90, f"{service} to be restarted and healthy")


def kill(service: str, number: int = 1) -> None:
    """Kill the main process from outside. A frozen process may die only when it is unfrozen."""
    process = docker("inspect", "--format", "{{.State.Pid}}", container(service, number))
    docker("run", "--rm", "--privileged", "--pid=host", "--entrypoint", "bash", KILLER, "-c", f"kill -9 {process}")


def kill_pool_processes(name: str, seconds: float, seed: int | None = None) -> None:
    """Kill pool processes of a worker's container at random moments, from inside."""
    code = f"""
import os, pathlib, random, time
def parent(stat):
    return int(stat.read_text().rpartition(")")[2].split()[1])
chance = random.Random({seed})
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    time.sleep(chance.uniform(0.2, 0.8))
    parents = {{int(each.parent.name): parent(each) for each in pathlib.Path("/proc").glob("[0-9]*/stat")}}
    children = sorted(pid for pid, of in parents.items() if parents.get(of) == 1 and of != 1)
    if children:
        os.kill(chance.choice(children), 9)
"""
    docker("exec", name, "python", "-c", code)


def processes(name: str) -> set[str]:
    """Return the ids of the processes in a container, in its own namespace, without those that have ended."""
    code = """
import pathlib
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    if stat.read_text().rpartition(")")[2].split()[0] != "Z":
        print(stat.parent.name)
"""
    return set(docker("exec", name, "python", "-c", code).split())


def hold(seconds: float) -> None:
    """Return after some seconds, for faults that have to last longer than a timeout."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 5, "the fault to last long enough")


@contextlib.contextmanager
def frozen(service: str, number: int = 1) -> Iterator[None]:
    """Freeze all processes of a container. It keeps its connections, and does not respond."""
    name = container(service, number)
    docker("pause", name)
    try:
        yield
    finally:
        if docker("inspect", "--format", "{{.State.Paused}}", name) == "true":
            docker("unpause", name)


@contextlib.contextmanager
def cut_off(service: str) -> Iterator[None]:
    """Disconnect a service from the network. Its peers do not receive the end of their connections."""
    with cut_off_container(container(service), service):
        yield


@contextlib.contextmanager
def cut_off_container(name: str, service: str = "worker") -> Iterator[None]:
    """Disconnect a container of a service from the network."""
    network = f"{SLUG}_default"
    docker("network", "disconnect", network, name)
    try:
        yield
    finally:
        docker("network", "connect", "--alias", service, network, name)


@contextlib.contextmanager
def stopped(stack: Stack, service: str, command: Literal["stop", "kill"] = "stop") -> Iterator[None]:
    """Stop a service and start it again. After `kill`, the restart policy does not apply."""
    stack.compose(command, service)
    try:
        yield
    finally:
        stack.compose("up", "--wait", service)


@contextlib.contextmanager
def disk_alarm(stack: Stack) -> Iterator[None]:
    """Trigger the broker's disk alarm, which blocks every publishing connection."""
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_disk_free_limit", str(10**15))
    try:
        yield
    finally:
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_disk_free_limit", "50MB")


@contextlib.contextmanager
def memory_alarm(stack: Stack) -> Iterator[None]:
    """Trigger the broker's memory alarm, which blocks every publishing connection."""
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_vm_memory_high_watermark", "0.6")
