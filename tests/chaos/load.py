"""The load: requests over HTTP, revocations of running tasks, and a few chains that bypass the outbox."""

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.stack.faults import faults

SENDERS = 4
CALM, HEAVY = 2.0, 12.0
"""Requests per second: far below and above the capacity of two workers."""

BACKLOG = 1000
"""Unfinished runs at which the load pauses, so that the backlog can be drained at the end. The limit is far above the
number of runs after a purge of the queue, so that load and backlog continue after it.
"""

CHAIN = """
from celery import chain
from app.celery_app import celery_app
from app.features.faults.tasks import effect
chain(*(effect.si(seconds=0.5) for _ in range(3))).apply_async()
"""


@dataclass(frozen=True)
class Request:
    """An accepted request."""

    task: str
    arguments: dict[str, Any]


def draw(chance: random.Random) -> Request:
    """Return a random request."""
    (task,) = chance.choices(["effect", "record", "add", "flaky", "fail"], [20, 30, 30, 15, 5])
    arguments: dict[str, dict[str, Any]] = {
        "effect": {"seconds": round(chance.uniform(0, 3), 2)},
        "record": {"seconds": round(chance.uniform(0.02, 1.5), 2)},
        "add": {"x": chance.randrange(1000), "y": chance.randrange(1000)},
        "flaky": {"failures": chance.randint(0, 3)},
        "fail": {},
    }
    return Request(task, arguments[task])


def make_rates(seed: int, minutes: float, *, hurried: bool = False) -> list[tuple[float, float]]:
    """Return the phases of the load as (end in seconds, requests per second); a `hurried` load has no calm phase."""
    if hurried:
        return [(minutes * 60, HEAVY)]
    chance = random.Random(f"{seed}/rates")
    phases: list[tuple[float, float]] = []
    end, rate = 0.0, HEAVY
    while end < minutes * 60:
        end += chance.uniform(90, 180) if rate == HEAVY else chance.uniform(30, 60)
        phases.append((round(end, 1), rate))
        rate = CALM if rate == HEAVY else HEAVY
    return phases


class Load:
    """Senders in the background.

    Args:
        seed: seed of every random decision.
        rates: phases of `make_rates`.
        unfinished: returns the number of unfinished runs.
        running: returns the ids of running runs.
    """

    def __init__(
        self,
        seed: int,
        rates: list[tuple[float, float]],
        unfinished: Callable[[], int],
        running: Callable[[], list[str]],
    ) -> None:
        self.accepted: dict[str, Request] = {}
        self.errors: Counter[str] = Counter()
        self.revoked: set[str] = set()
        """Runs for which a revocation was requested."""
        self._seed = seed
        self._rates = rates
        self._unfinished = unfinished
        self._running = running
        self._over = threading.Event()
        self._began = 0.0
        works = [(self._send, number) for number in range(SENDERS)] + [(self._revoke, SENDERS), (self._chain, 5)]
        self._threads = [
            threading.Thread(target=work, args=(random.Random(f"{seed}/{number}"),), daemon=True)
            for work, number in works
        ]

    def start(self) -> None:
        """Start sending."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending, and wait for the responses."""
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=90)

    def _rate(self) -> float:
        elapsed = time.monotonic() - self._began
        return next((rate for end, rate in self._rates if elapsed < end), CALM)

    def _client(self) -> httpx2.Client:
        return httpx2.Client(base_url="http://localhost:8060", timeout=15)

    def _send(self, chance: random.Random) -> None:
        with self._client() as http:
            while not self._over.wait(SENDERS / self._rate()):
                if self._unfinished() >= BACKLOG:
                    continue
                request = draw(chance)
                try:
                    response = http.post(f"/tasks/{request.task}", params=request.arguments)
                except httpx2.HTTPError as error:
                    self.errors[type(error).__name__] += 1
                    continue
                if response.status_code == 202:
                    self.accepted[response.json()["task_id"]] = request
                else:
                    self.errors[str(response.status_code)] += 1

    def _revoke(self, chance: random.Random) -> None:
        with self._client() as http:
            while not self._over.wait(chance.uniform(0.5, 2)):
                if not (running := self._running()):
                    continue
                run_id = chance.choice(running)
                self.revoked.add(run_id)  # a request without a response may have revoked it
                try:
                    http.delete(f"/tasks/{run_id}")
                except httpx2.HTTPError as error:
                    self.errors[f"DELETE {type(error).__name__}"] += 1

    def _chain(self, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(40, 80)):
            try:
                faults.docker("exec", faults.container("backend"), "python", "-c", CHAIN)
            except subprocess.SubprocessError:
                self.errors["chain"] += 1
