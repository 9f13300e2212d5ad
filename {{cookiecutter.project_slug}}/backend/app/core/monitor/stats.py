"""Statistics of the dashboard: outcomes, runtimes and load, by task and worker, over one day.

Statistics are kept in buckets of 5 s for one hour and of 60 s for one day. Memory use is therefore bounded, and the
cost of a report is independent of the number of tasks in Flower's memory.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Self

from app.core.monitor.queue_states import QueueState
from app.core.tasks.queues import DEAD_LETTERS

SHORTEST, LONGEST = 5, 1440  # limits of the reported period, in minutes
POINTS = 180  # maximum number of points in a chart
MAX_SERIES = 50  # maximum number of task and worker pairs that a bucket tracks separately; the rest are OTHER
OTHER = "other"
_GROWTH = math.log(1.05)  # runtimes are counted in bins, each 5 % wider than the one before

type Pair = tuple[str, str]  # a task and a worker

_OUTCOMES = {"SUCCESS": "succeeded", "FAILURE": "failed"}


@dataclass(slots=True)
class Count:
    """Tasks counted over a period; runtimes are those of successes, in seconds, as Celery reports no others."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Add another count."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.retried += other.retried
        self.seconds += other.seconds
        self.bins.update(other.bins)

    def observe_runtime(self, seconds: float) -> None:
        """Count a runtime."""
        self.seconds += seconds
        self.bins[math.ceil(math.log(max(seconds, 1e-4)) / _GROWTH)] += 1

    def p95_runtime(self) -> float | None:
        """Return the 95th percentile in seconds, accurate to 5 %; None if no task succeeded."""
        seen = 0
        for each in sorted(self.bins):
            seen += self.bins[each]
            if seen >= 0.95 * self.succeeded:
                return math.exp((each - 0.5) * _GROWTH)
        return None

    def summary(self, seconds: float) -> dict[str, float | None]:
        """Return the API's representation of a count over a period of `seconds`."""
        ended = self.succeeded + self.failed
        return {
            "succeeded": self.succeeded,
            "failed": self.failed,
            "retried": self.retried,
            "throughput": ended / seconds,
            "success_rate": self.succeeded / ended if ended else None,
            "failure_rate": self.failed / ended if ended else None,
            "average_runtime": self.seconds / self.succeeded if self.succeeded else None,
            "p95_runtime": self.p95_runtime(),
        }


@dataclass
class Bucket:
    """Counts over a short interval, and the last sample in it."""

    counts: dict[Pair, Count] = field(default_factory=dict)
    active: Counter[Pair] | None = None  # running tasks; None without a sample
    queued: int | None = None


@dataclass
class Series:
    """Buckets of equal length: the current one and `size` before it."""

    length: int
    size: int
    _buckets: dict[int, Bucket] = field(default_factory=dict)

    def at(self, time: float) -> Bucket:
        """Return the bucket of a Unix time."""
        number = int(time // self.length)
        if number not in self._buckets:
            self._buckets[number] = Bucket()
            oldest = max(self._buckets) - self.size
            self._buckets = {each: bucket for each, bucket in self._buckets.items() if each >= oldest}
        return self._buckets.get(number) or Bucket()

    def between(self, start: int, end: int) -> Iterator[Bucket]:
        """Yield the buckets of a period, without the empty ones."""
        numbers = range(start // self.length, end // self.length)
        return (self._buckets[number] for number in numbers if number in self._buckets)


class Stats:
    """Data of the dashboard."""

    def __init__(self) -> None:
        self._fine = Series(5, 720)
        self._coarse = Series(60, LONGEST)
        self._active: dict[str, Pair] = {}
        self._queues: dict[str, QueueState] = {}
        self.tasks: set[str] = set()
        self.workers: set[str] = set()

    def restore(self, tasks: Iterable[Any]) -> None:
        """Count the tasks of Flower's persistent state: ended and running ones."""
        for task in tasks:
            if task.state in _OUTCOMES and task.worker:
                self._count(task, task.worker.hostname, _OUTCOMES[task.state], task.timestamp)
            elif task.state in {"STARTED", "PROGRESS"} and task.worker:
                self._active[task.uuid] = (task.name or "unknown", task.worker.hostname)

    def observe(self, event: Mapping[str, Any], task: Any) -> None:
        """Count a task event; `task` is the task's state in Flower."""
        kind = event["type"].removeprefix("task-")
        if kind in {"started", "progress"}:
            self._active[event["uuid"]] = (task.name or "unknown", event["hostname"])
        elif kind in {"succeeded", "failed", "retried", "revoked", "rejected"}:
            self._active.pop(event["uuid"], None)
        if kind in {"succeeded", "failed", "retried"}:
            self._count(task, event["hostname"], kind, event["local_received"])

    def clear_active(self, worker: str) -> None:
        """Drop the running tasks of a worker."""
        self._active = {each: key for each, key in self._active.items() if key[1] != worker}

    def sample(self, now: float, queues: Mapping[str, QueueState], alive: Set[str]) -> None:
        """Record the running tasks of the workers that are `alive`, and the queue lengths."""
        self._queues = dict(queues)
        for series in (self._fine, self._coarse):
            bucket = series.at(now)
            bucket.active = Counter(self._active_on(alive))
            bucket.queued = self._queued()

    def _active_on(self, alive: Set[str]) -> list[Pair]:
        return [key for key in self._active.values() if key[1] in alive]

    def _queued(self) -> int | None:
        ready = [state.ready for name, state in self._queues.items() if name != DEAD_LETTERS]
        return sum(ready) if ready else None

    def _count(self, task: Any, worker: str, kind: str, time: float) -> None:
        key = (task.name or "unknown", worker)
        self.tasks.add(key[0])
        self.workers.add(worker)
        for series in (self._fine, self._coarse):
            counts = series.at(time).counts
            count = counts.setdefault(key if key in counts or len(counts) < MAX_SERIES else (OTHER, OTHER), Count())
            setattr(count, kind, getattr(count, kind) + 1)
            if kind == "succeeded":
                count.observe_runtime(task.runtime or 0)

    def report(
        self, now: float, minutes: int, alive: Set[str], task: str | None = None, worker: str | None = None
    ) -> dict[str, Any]:
        """Return the statistics of the last `minutes`, optionally of one task or worker, up to the last full bucket.

        Rates are from 0 to 1, runtimes in seconds, `time` is Unix time. None means no data. Only workers that are
        `alive` have active tasks; an offline worker is listed while the period includes tasks of it.
        """
        source = self._fine if minutes * 60 <= self._fine.length * self._fine.size else self._coarse
        step = math.ceil(minutes * 60 / POINTS / source.length) * source.length
        end = int(now // source.length) * source.length
        start = end - math.ceil(minutes * 60 / step) * step

        def selected(key: Pair) -> bool:
            return task in (None, key[0]) and worker in (None, key[1])

        pairs: defaultdict[Pair, Count] = defaultdict(Count)
        points: list[dict[str, Any]] = []
        for time in range(start, end, step):
            counts: defaultdict[Pair, Count] = defaultdict(Count)
            active = queued = None
            for bucket in source.between(time, time + step):
                for key, count in bucket.counts.items():
                    counts[key].add(count)
                if bucket.active is not None:
                    active = sum(times for key, times in bucket.active.items() if selected(key))
                    queued = bucket.queued
            for key, count in counts.items():
                pairs[key].add(count)
            point = _sum(count for key, count in counts.items() if selected(key))
            points.append({"time": time + step, **point.summary(step), "active": active, "queued": queued})
        totals = {key: count for key, count in pairs.items() if selected(key)}
        running = [key for key in self._active_on(alive) if selected(key)]
        span = end - start

        def rows(part: int, names: Set[str]) -> dict[str, dict[str, Any]]:
            active = Counter(key[part] for key in running)
            found: dict[str, dict[str, Any]] = {}
            for name in sorted({*names, *active, *(key[part] for key in pairs)}):
                total = _sum(count for key, count in totals.items() if key[part] == name)
                found[name] = {**total.summary(span), "active": active[name]}
            return found

        workers = rows(1, alive)
        for name, row in workers.items():
            row["online"] = None if name == OTHER else name in alive
        ready = {name: state.ready for name, state in self._queues.items()}
        return {
            "minutes": minutes,
            "step": step,
            "task": task,
            "worker": worker,
            "total": {
                **_sum(totals.values()).summary(span),
                "active": len(running),
                "queued": self._queued(),
                "dead_letters": ready.get(DEAD_LETTERS),
            },
            "queues": ready,
            "consumers": {name: state.consumers for name, state in self._queues.items()},
            "tasks": rows(0, set()),
            "workers": workers,
            "series": {name: [point[name] for point in points] for name in points[0]},
        }


def _sum(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total.add(count)
    return total
