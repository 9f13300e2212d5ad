"""Executor of a plan: each fault runs in its own thread, which also ends it."""

import contextlib
import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator

import psycopg

from tests.chaos.plan import Fault
from tests.stack.conftest import SLUG, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.ledger import Ledger

APPLICATION_NAME = "chaos"
"""`application_name` of the checker's sessions, which faults do not end."""

NETWORK = f"{SLUG}_default"
ERRORS = (subprocess.SubprocessError, psycopg.Error, AssertionError)


class Executor:
    """The faults of a plan, in the background."""

    def __init__(self, stack: Stack, ledger: Ledger, plan: list[Fault]) -> None:
        self.executed: list[Fault] = []
        self.failed: list[Fault] = []
        self.broker_away: Fault | None = None
        """The active fault that prevents the broker from confirming messages."""
        self._stack = stack
        self._ledger = ledger
        self._plan = plan
        self._over = threading.Event()
        self._began = 0.0
        self._active: list[Fault] = []
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._scheduler = threading.Thread(target=self._schedule, daemon=True)

    def start(self) -> None:
        """Start the plan."""
        self._began = time.monotonic()
        self._scheduler.start()

    def stop(self) -> None:
        """Start no more faults, end the active ones, and undo the remaining effects."""
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        for thread in [self._scheduler, *self._threads]:
            if thread.ident is not None:
                thread.join(timeout=180)
        heal()

    def _schedule(self) -> None:
        for fault in self._plan:
            if self._over.wait(max(0, self._began + fault.at - time.monotonic())):
                return
            with self._changed:
                self._changed.wait_for(lambda: self._over.is_set() or self._is_free(fault))  # noqa: B023 (called at once)
                if self._over.is_set():
                    return
                self._active.append(fault)
            self._threads.append(threading.Thread(target=self._execute, args=(fault,), daemon=True))
            self._threads[-1].start()

    def _log(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:.1f} s: {text}", flush=True)

    def _is_free(self, fault: Fault) -> bool:
        return len(self._active) < 2 and not any(map(fault.conflicts, self._active))

    def _execute(self, fault: Fault) -> None:
        try:
            self._log(f"begins, planned at {fault}")
            self._perform(fault)
            self.executed.append(fault)
        except ERRORS as error:
            self.failed.append(fault)
            output = getattr(error, "stderr", "") or ""
            self._log(f"failed, planned at {fault}: {error} {output}")
        finally:
            with self._changed:
                self._active.remove(fault)
                self._changed.notify_all()

    def _perform(self, fault: Fault) -> None:
        number = self._number(fault)
        name = faults.container(fault.service, number)
        wait_until(lambda: self._over.is_set() or is_ready(name, fault.kind), 60, f"{name} to run")
        if self._over.is_set():
            return
        if fault.kind == "kill":
            faults.kill(fault.service, number)
        elif fault.kind == "kill pool processes":
            faults.kill_pool_processes(name, fault.seconds, fault.salt)
        elif fault.kind == "restart":
            self._stack.compose("restart", fault.service)
        elif fault.kind == "end sessions":
            self._end_sessions(random.Random(fault.salt))
        elif fault.kind == "purge":
            faults.docker("exec", name, "rabbitmqctl", "--quiet", "purge_queue", "celery")
        elif fault.kind == "scale":
            options = ("--detach", "--no-deps", "--no-recreate", "--no-build")
            self._stack.compose("up", *options, "--scale", f"worker={fault.salt}", "worker")
        else:
            contexts = {
                "pause": lambda: faults.frozen(fault.service, number),
                "cut": lambda: faults.cut_off_container(name, fault.service),
                "memory alarm": lambda: faults.memory_alarm(self._stack),
            }
            with contexts[fault.kind](), self._tracked(fault):
                self._over.wait(fault.seconds)

    @contextlib.contextmanager
    def _tracked(self, fault: Fault) -> Iterator[None]:
        """Set `broker_away` during a fault that makes the broker unavailable."""
        if fault.service != "rabbitmq" or fault.kind == "memory alarm":
            yield
            return
        self.broker_away = fault
        try:
            yield
        finally:
            self.broker_away = None

    def _number(self, fault: Fault) -> int:
        """Return the number of the fault's container. A worker's number is mapped to an existing container."""
        if fault.service != "worker":
            return 1
        names = faults.docker("ps", "--all", "--format", "{{.Names}}", *of_project("worker")).split()
        numbers = sorted(int(name.rpartition("-")[2]) for name in names)
        return numbers[(fault.number - 1) % len(numbers)]

    def _end_sessions(self, chance: random.Random) -> None:
        others = """
            SELECT pid FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND application_name <> %(checker)s AND pid <> pg_backend_pid()
            ORDER BY pid
        """
        pids = [pid for (pid,) in self._ledger.execute(others, checker=APPLICATION_NAME)]
        chosen = chance.sample(pids, chance.randint(min(1, len(pids)), len(pids)))
        self._ledger.execute("SELECT pg_terminate_backend(pid) FROM unnest(%(pids)s::int[]) AS pid", pids=chosen)


def of_project(service: str = "") -> tuple[str, ...]:
    """Return docker's filters for the containers of the project, or of one service."""
    labels = {"project": SLUG, **({"service": service} if service else {}), "oneoff": "False"}
    return tuple(
        each for name, value in labels.items() for each in ("--filter", f"label=com.docker.compose.{name}={value}")
    )


def is_ready(name: str, kind: str) -> bool:
    """Return whether a fault can be executed: the container runs, and is healthy if the fault uses its service."""
    state = json.loads(faults.docker("inspect", "--format", "{{json .State}}", name))
    uses_service = kind in {"purge", "memory alarm", "end sessions"}
    return bool(state["Status"] == "running" and state["Pid"]) and (
        not uses_service or state["Health"]["Status"] == "healthy"
    )


def heal() -> None:
    """Undo the pauses and disconnections that a failed fault has left."""
    for name in faults.docker("ps", "--format", "{{.Names}}", "--filter", "status=paused", *of_project()).split():
        faults.docker("unpause", name)
    for line in faults.docker(
        "ps", "--all", "--format", '{{.Names}} {{.Label "com.docker.compose.service"}}', *of_project()
    ).splitlines():
        name, service = line.split()
        networks = json.loads(faults.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", name))
        if NETWORK not in networks:
            faults.docker("network", "connect", "--alias", service, NETWORK, name)
