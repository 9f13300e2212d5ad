"""The schedule of faults: every random decision derives from the seed."""

import random
from collections.abc import Collection
from dataclasses import dataclass

WORKERS = 2
"""Containers of the worker at the start."""

DECK = {
    "kill": ("worker", "worker", "rabbitmq", "db", "backend", "redis", "flower"),
    "kill pool processes": ("worker", "worker", "worker"),
    "pause": ("worker", "worker", "rabbitmq", "rabbitmq", "db", "backend", "redis", "flower"),
    "cut": ("worker", "worker", "rabbitmq", "db", "backend", "redis", "flower"),
    "restart": ("worker", "rabbitmq", "db", "backend", "redis"),
    "end sessions": ("db", "db"),
    "purge": ("rabbitmq", "rabbitmq"),
    "scale": ("worker",),
    "memory alarm": ("rabbitmq",),
}
"""Kinds of faults and their services, each as often as it occurs in one deck."""

INSTANT = {"kill": 10.0, "restart": 20.0, "end sessions": 2.0, "purge": 2.0, "scale": 10.0}
"""Seconds that a container takes to recover from faults without a duration."""

HURRIED = frozenset({"worker", "rabbitmq", "db", "backend"})
"""The services that deliver runs. A short schedule has no time for others."""

BURST = 15.0
"""Maximum duration of `kill pool processes`, because a run fails when it has lost its process six times."""

FIRST, QUIET = 15.0, 5.0
"""Seconds before the first fault, and after the last."""


@dataclass(frozen=True)
class Fault:
    """A fault; `number` is the container of the worker, or 0 for all containers of a service."""

    at: float
    kind: str
    service: str
    number: int
    seconds: float
    salt: int
    """Seed of the decisions within the fault; the number of containers after `scale`."""

    @property
    def until(self) -> float:
        """Return the second at which the containers have recovered."""
        return self.at + (self.seconds or INSTANT[self.kind])

    def conflicts(self, other: "Fault") -> bool:
        """Return whether the other fault affects the same container, or removes the lock of a frozen process."""
        frozen = [each for each in (self, other) if each.service == "worker" and each.kind in {"pause", "cut"}]
        if frozen and "db" in {self.service, other.service}:
            return True
        return self.service == other.service and (self.number == other.number or 0 in (self.number, other.number))

    def __str__(self) -> str:
        target = f"{self.service}-{self.number}" if self.number else self.service
        if self.kind == "scale":
            return f"{self.at:.1f} s: scale {target} to {self.salt}"
        return f"{self.at:.1f} s: {self.kind} {target}{f' for {self.seconds:g} s' if self.seconds else ''}"


def shuffle(chance: random.Random, available: Collection[str]) -> list[tuple[str, str]]:
    """Return the deck in a random order in which every kind occurs once before one is repeated, the last card first."""
    left = {kind: [service for service in services if service in available] for kind, services in DECK.items()}
    for services in left.values():
        chance.shuffle(services)
    deck: list[tuple[str, str]] = []
    while kinds := [kind for kind, services in left.items() if services]:
        chance.shuffle(kinds)
        deck += [(kind, left[kind].pop()) for kind in kinds]
    return deck[::-1]


def make_plan(seed: int, minutes: float, services: Collection[str], *, hurried: bool = False) -> list[Fault]:
    """Return the faults of a run, at most two at a time, of different containers.

    A `hurried` schedule has shorter faults in quick succession, of the services that deliver runs.
    """
    chance = random.Random(seed)
    shortest, longest, pause = (3.0, 25.0, 4.0) if hurried else (1.0, 75.0, 12.0)
    available = HURRIED & set(services) if hurried else set(services)
    deck: list[tuple[str, str]] = []
    faults: list[Fault] = []
    workers, at = WORKERS, FIRST
    while True:
        if not deck:
            deck = shuffle(chance, available)
        kind, service = deck[-1]
        most = min(longest, BURST) if kind == "kill pool processes" else longest
        whole = service != "worker" or kind in {"scale", "restart"}
        fault = Fault(
            at=round(at, 1),
            kind=kind,
            service=service,
            number=0 if whole else chance.randint(1, workers),
            seconds=0.0 if kind in INSTANT else round(chance.uniform(shortest, most), 1),
            salt=chance.choice([n for n in (1, 2, 3) if n != workers]) if kind == "scale" else chance.getrandbits(32),
        )
        if fault.until > minutes * 60 - QUIET:
            return faults
        active = [other for other in faults if other.until > fault.at]
        if len(active) > 1 or any(map(fault.conflicts, active)):
            at = min(other.until for other in active) + 0.1
            continue
        deck.pop()
        workers = fault.salt if kind == "scale" else workers
        faults.append(fault)
        at += chance.uniform(1, pause)
