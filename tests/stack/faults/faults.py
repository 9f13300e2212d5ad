"""What can break, as contexts and calls. A crash is a main process killed from outside: so the restart policy acts."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Literal

from tests.stack.conftest import SLUG, Stack, wait_until

KILLER = "python:3.13-slim"
"""Any image with a shell, to kill from outside of a container's own processes."""


def docker(*arguments: str) -> str:
    """Run docker; returns what it printed."""
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def container(service: str, number: int = 1) -> str:
    """The name of a service's container."""
    return f"{SLUG}-{service}-{number}"


def starts(service: str, number: int = 1) -> str:
    """When the container was started last."""
    return docker("inspect", "--format", "{{.State.StartedAt}}", container(service, number))


def exit_code(service: str) -> int:
    """How the main process of a stopped service ended."""
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", container(service)))


def crash(service: str, number: int = 1) -> None:
    """Kill the main process, and wait until the restart policy has brought the service back, healthy."""
    before = starts(service, number)
    kill(service, number)

    def back() -> bool:
        status = docker("inspect", "--format", "{{.State.Health.Status}}", container(service, number))
        return starts(service, number) != before and status == "healthy"

    wait_until(back, 90, f"{service} to come back by itself")


def kill(service: str, number: int = 1) -> None:
    """Kill the main process from outside; one that is frozen may die when it thaws."""
    process = docker("inspect", "--format", "{{.State.Pid}}", container(service, number))
    docker("run", "--rm", "--privileged", "--pid=host", "--entrypoint", "bash", KILLER, "-c", f"kill -9 {process}")


def kill_pool_processes(name: str, seconds: float, seed: int | None = None) -> None:
    """Kill a pool process of a worker's container at random moments, from inside."""
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


@contextlib.contextmanager
def frozen(service: str, number: int = 1) -> Iterator[None]:
    """Freeze all processes of a container: it keeps its connections, and answers nothing."""
    name = container(service, number)
    docker("pause", name)
    try:
        yield
    finally:
        if docker("inspect", "--format", "{{.State.Paused}}", name) == "true":
            docker("unpause", name)


@contextlib.contextmanager
def cut_off(service: str) -> Iterator[None]:
    """Take a service off the network: nobody hears of it, not even that connections end."""
    with cut_off_container(container(service), service):
        yield


@contextlib.contextmanager
def cut_off_container(name: str, service: str = "worker") -> Iterator[None]:
    """Take a container of a service off the network."""
    network = f"{SLUG}_default"
    docker("network", "disconnect", network, name)
    try:
        yield
    finally:
        docker("network", "connect", "--alias", service, network, name)


@contextlib.contextmanager
def stopped(stack: Stack, service: str, way: Literal["stop", "kill"] = "stop") -> Iterator[None]:
    """Stop a service, or kill it so that no restart policy acts, and start it again."""
    stack.compose(way, service)
    try:
        yield
    finally:
        stack.compose("up", "--wait", service)


@contextlib.contextmanager
def disk_alarm(stack: Stack) -> Iterator[None]:
    """Let the broker believe that its disk is full: it blocks every connection that publishes."""
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_disk_free_limit", str(10**15))
    try:
        yield
    finally:
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_disk_free_limit", "50MB")


@contextlib.contextmanager
def memory_alarm(stack: Stack) -> Iterator[None]:
    """Let the broker believe that it is out of memory: it blocks who publishes."""
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "set_vm_memory_high_watermark", "0.6")
