"""What the dashboard draws: how many tasks ended and how, and how long they ran, by task and by worker, over a day.

Figures are kept in intervals of 5 s for an hour and of a minute for a day, and nothing else is. So their memory is
bounded, and drawing them costs the same, however many tasks Flower knows.
"""

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

SHORTEST, LONGEST = 5, 1440
"""Minutes that the figures can go back."""

POINTS = 180
"""At most that many points in a graph."""

PAIRS = 50
"""So many pairs of a task and a worker are told apart in an interval; what comes after them is "other"."""

_GROWTH = math.log(1.05)  # run times are counted in bins, each 5 % wider than the one before

_ENDS = {"SUCCESS": "succeeded", "FAILURE": "failed"}
_AT_WORK = {"STARTED", "PROGRESS"}


@dataclass(slots=True)
class Count:
    """What was counted in some time; run times are those of successes, in seconds, as Celery tells no others."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0
    bins: dict[int, int] = field(default_factory=dict)

    def add(self, other: Self) -> None:
        """Count what another has counted."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.retried += other.retried
        self.seconds += other.seconds
        for each, times in other.bins.items():
            self.bins[each] = self.bins.get(each, 0) + times

    def ran(self, seconds: float) -> None:
        """Count a run time."""
        self.seconds += seconds
        each = math.ceil(math.log(max(seconds, 1e-4)) / _GROWTH)
        self.bins[each] = self.bins.get(each, 0) + 1

    @property
    def ended(self) -> int:
        """How many tasks ended."""
        return self.succeeded + self.failed

    @property
    def success_rate(self) -> float | None:
        """From 0 to 1; none when no task ended."""
        return self.succeeded / self.ended if self.ended else None

    @property
    def average_runtime(self) -> float | None:
        """In seconds; none when no task succeeded."""
        return self.seconds / self.succeeded if self.succeeded else None

    @property
    def p95_runtime(self) -> float | None:
        """The run time that 95 of 100 did not exceed, in seconds, within 5 %; none when no task succeeded."""
        seen = 0
        for each in sorted(self.bins):
            seen += self.bins[each]
            if seen >= 0.95 * self.succeeded:
                return math.exp((each - 0.5) * _GROWTH)
        return None

    def figures(self, seconds: float) -> dict[str, float | None]:
        """What the API gives of it, `seconds` being the time it was counted in."""
        rate = self.success_rate
        return {
            "succeeded": self.succeeded,
            "failed": self.failed,
            "retried": self.retried,
            "throughput": self.ended / seconds,
            "success_rate": rate,
            "failure_rate": None if rate is None else 1 - rate,
            "average_runtime": self.average_runtime,
            "p95_runtime": self.p95_runtime,
        }


@dataclass
class Interval:
    """What happened in an interval, and what was seen at its end."""

    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    """By task and worker."""
    active: Counter[tuple[str, str]] | None = None
    """How many were at work, by task and worker; none when nobody looked."""
    queued: int | None = None


class Tier:
    """Intervals of the same length: the one that is not over yet, and `size` before it."""

    def __init__(self, length: int, size: int) -> None:
        self.length = length
        self.size = size
        self._intervals: dict[int, Interval] = {}

    def at(self, time: float) -> Interval:
        """The interval of a time, in seconds since 1970."""
        number = int(time // self.length)
        if number not in self._intervals:
            self._intervals[number] = Interval()
            newest = max(self._intervals)
            for old in [each for each in self._intervals if each < newest - self.size]:
                del self._intervals[old]
        return self._intervals.get(number) or Interval()

    def between(self, start: float, end: float) -> Iterator[Interval]:
        """The intervals of a time in which something was seen."""
        numbers = range(int(start // self.length), int(end // self.length))
        return (self._intervals[number] for number in numbers if number in self._intervals)


class Figures:
    """All that the dashboard shows."""

    def __init__(self) -> None:
        self._fine = Tier(5, 720)
        self._coarse = Tier(60, LONGEST)
        self._at_work: dict[str, tuple[str, str]] = {}
        self._queues: dict[str, int] = {}
        self.tasks: set[str] = set()
        self.workers: set[str] = set()

    def restore(self, tasks: Iterable[Any]) -> None:
        """Take over what Flower remembers from before its start: the tasks that ended, and those at work."""
        for task in tasks:
            if task.state in _ENDS and task.worker:
                self._count(task, task.worker.hostname, _ENDS[task.state], task.timestamp)
            elif task.state in _AT_WORK and task.worker:
                self._at_work[task.uuid] = (task.name or "unknown", task.worker.hostname)

    def observe(self, event: Mapping[str, Any], task: Any) -> None:
        """Count what an event of a task tells, `task` being all that Flower knows of it."""
        kind = event["type"].removeprefix("task-")
        if kind in {"started", "progress"}:
            self._at_work[event["uuid"]] = (task.name or "unknown", event["hostname"])
        elif kind in {"succeeded", "failed", "retried", "revoked", "rejected"}:
            self._at_work.pop(event["uuid"], None)
        if kind in {"succeeded", "failed", "retried"}:
            self._count(task, event["hostname"], kind, event["local_received"])

    def forget_worker(self, worker: str) -> None:
        """Nothing is at work any more on a worker that is gone."""
        self._at_work = {each: key for each, key in self._at_work.items() if key[1] != worker}

    def look(self, now: float, queues: Mapping[str, int], waiting: str, alive: Container[str]) -> None:
        """Note what is at work on workers that are `alive`, and what waits, `waiting` being the queue that counts."""
        self._queues = dict(queues)
        for tier in (self._fine, self._coarse):
            interval = tier.at(now)
            interval.active = Counter(self._active(alive))
            interval.queued = queues.get(waiting)

    def _active(self, alive: Container[str]) -> list[tuple[str, str]]:
        return [key for key in self._at_work.values() if key[1] in alive]

    def _count(self, task: Any, worker: str, kind: str, time: float) -> None:
        key = (task.name or "unknown", worker)
        self.tasks.add(key[0])
        self.workers.add(worker)
        for tier in (self._fine, self._coarse):
            counts = tier.at(time).counts
            count = counts.setdefault(key if key in counts or len(counts) < PAIRS else ("other", "other"), Count())
            setattr(count, kind, getattr(count, kind) + 1)
            if kind == "succeeded":
                count.ran(task.runtime or 0)

    def report(
        self, now: float, minutes: int, alive: Container[str], task: str | None = None, worker: str | None = None
    ) -> dict[str, Any]:
        """The figures of the last `minutes`, of all or of one task or worker, up to the last interval that has ended.

        What is active now is so on a worker that is `alive`.

        Rates are from 0 to 1, run times in seconds, `time` in seconds since 1970. A figure that there is none of, as
        the average of nothing, is null.
        """
        tier = self._fine if minutes * 60 <= self._fine.length * self._fine.size else self._coarse
        step = math.ceil(minutes * 60 / POINTS / tier.length) * tier.length
        end = now // tier.length * tier.length
        start = end - math.ceil(minutes * 60 / step) * step

        def chosen(key: tuple[str, str]) -> bool:
            return task in (None, key[0]) and worker in (None, key[1])

        pairs: dict[tuple[str, str], Count] = {}
        points: list[dict[str, Any]] = []
        time = start
        while time < end:
            counts: dict[tuple[str, str], Count] = {}
            active = queued = None
            for interval in tier.between(time, time + step):
                for key, count in interval.counts.items():
                    counts.setdefault(key, Count()).add(count)
                if interval.active is not None:
                    active = sum(times for key, times in interval.active.items() if chosen(key))
                    queued = interval.queued
            for key, count in counts.items():
                pairs.setdefault(key, Count()).add(count)
            point = _sum(count for key, count in counts.items() if chosen(key))
            points.append({"time": time + step, **point.figures(step), "active": active, "queued": queued})
            time += step
        at_work = [key for key in self._active(alive) if chosen(key)]
        span = end - start
        total = _sum(count for key, count in pairs.items() if chosen(key))
        by_task, by_worker = (
            {name: _sum(count for key, count in pairs.items() if key[part] == name and chosen(key)) for name in names}
            for part, names in enumerate(({key[0] for key in pairs}, {key[1] for key in pairs}))
        )
        return {
            "minutes": minutes,
            "step": step,
            "task": task,
            "worker": worker,
            "total": {**total.figures(span), "active": len(at_work)},
            "queues": self._queues,
            "tasks": _each(by_task, Counter(key[0] for key in at_work), span),
            "workers": _each(by_worker, Counter(key[1] for key in at_work), span),
            "series": {name: [point[name] for point in points] for name in points[0]},
        }


def _sum(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total.add(count)
    return total


def _each(counts: Mapping[str, Count], active: Mapping[str, int], seconds: float) -> dict[str, dict[str, Any]]:
    names = sorted({*counts, *active})
    return {name: {**counts.get(name, Count()).figures(seconds), "active": active.get(name, 0)} for name in names}
