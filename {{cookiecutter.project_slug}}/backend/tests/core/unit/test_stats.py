from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.core.monitor import queue_states
from app.core.monitor.queue_states import QueueState
from app.core.monitor.stats import LONGEST, MAX_SERIES, POINTS, Stats
from app.core.tasks import queues

NOW = 1_800_000_000.0
ALIVE = {"worker@a", "worker@b"}


@pytest.fixture
def two_queues() -> Iterator[None]:
    before = queues.names()
    queues.define([queues.DEFAULT, "reports"])
    yield
    queues.define(before)


def observe(stats: Stats, kind: str, time: float = NOW - 1, **task: Any) -> None:
    given: dict[str, Any] = {"name": "add", "uuid": "1", "worker": "worker@a", "runtime": 0.1} | task
    event = {"type": f"task-{kind}", "uuid": given["uuid"], "hostname": given["worker"], "local_received": time}
    stats.observe(event, SimpleNamespace(**given))


def test_report_has_no_values_without_data() -> None:
    report = Stats().report(NOW, 5, set())
    assert report["total"]["throughput"] == 0
    for metric in ("success_rate", "average_runtime", "p95_runtime", "queued", "dead_letters"):
        assert report["total"][metric] is None, metric
    assert set(report["series"]["active"]) == {None}
    assert (report["queues"], report["consumers"], report["workers"]) == ({}, {}, {})


def test_report_has_rates_and_runtimes() -> None:
    stats = Stats()
    for number in range(1, 100):
        observe(stats, "succeeded", runtime=number / 100)
    observe(stats, "failed")
    observe(stats, "retried")
    total = stats.report(NOW, 5, ALIVE)["total"]
    assert (total["succeeded"], total["failed"], total["retried"]) == (99, 1, 1)
    assert total["throughput"] == pytest.approx(100 / 300)
    assert total["success_rate"] == pytest.approx(0.99)
    assert total["failure_rate"] == pytest.approx(0.01)
    assert total["average_runtime"] == pytest.approx(0.5)
    assert total["p95_runtime"] == pytest.approx(0.95, rel=0.05)


def test_report_separates_tasks_and_workers() -> None:
    stats = Stats()
    observe(stats, "succeeded")
    observe(stats, "succeeded", name="slow", worker="worker@b")
    observe(stats, "failed", name="slow", worker="worker@b")
    report = stats.report(NOW, 5, ALIVE, task="slow")
    assert report["total"]["succeeded"] == 1
    assert {name: row["succeeded"] for name, row in report["tasks"].items()} == {"add": 0, "slow": 1}
    assert {name: row["failed"] for name, row in report["workers"].items()} == {"worker@a": 0, "worker@b": 1}
    assert stats.report(NOW, 5, ALIVE, worker="worker@a")["total"]["failed"] == 0


def test_worker_is_marked_offline_and_dropped_when_its_tasks_are_older_than_the_period() -> None:
    stats = Stats()
    observe(stats, "succeeded", time=NOW - 600)
    online = {name: row["online"] for name, row in stats.report(NOW, 15, {"worker@b"})["workers"].items()}
    assert online == {"worker@a": False, "worker@b": True}
    assert list(stats.report(NOW, 5, {"worker@b"})["workers"]) == ["worker@b"]


def test_report_has_active_tasks_of_online_workers() -> None:
    stats = Stats()
    for uuid in ("1", "2", "3"):
        observe(stats, "started", uuid=uuid)
    observe(stats, "succeeded", uuid="1")
    stats.sample(NOW - 1, {}, ALIVE)
    report = stats.report(NOW, 5, ALIVE)
    assert report["total"]["active"] == report["tasks"]["add"]["active"] == report["series"]["active"][-1] == 2
    assert stats.report(NOW, 5, set())["total"]["active"] == 0
    stats.clear_active("worker@a")
    assert stats.report(NOW, 5, ALIVE)["total"]["active"] == 0


def test_queued_is_the_sum_of_all_task_queues() -> None:
    stats = Stats()
    states = {"celery": QueueState(7, 1), "reports": QueueState(2, 0), "dead-letters": QueueState(1, None)}
    stats.sample(NOW - 1, states, ALIVE)
    report = stats.report(NOW, 5, ALIVE)
    assert report["total"]["queued"] == report["series"]["queued"][-1] == 9
    assert report["total"]["dead_letters"] == 1
    assert report["queues"] == {"celery": 7, "reports": 2, "dead-letters": 1}
    assert report["consumers"] == {"celery": 1, "reports": 0, "dead-letters": None}


def test_queue_has_no_consumers_when_it_is_missing_at_the_broker(two_queues: None) -> None:
    found = [{"name": "celery", "messages_ready": 7, "consumers": 2}, {"name": "dead-letters", "consumers": 0}]
    assert queue_states.parse(found) == {
        "celery": QueueState(7, 2),
        "reports": QueueState(0, 0),
        "dead-letters": QueueState(0, None),
    }


def test_consumers_are_unknown_until_the_broker_reports_them(two_queues: None) -> None:
    assert queue_states.parse([{"name": "celery"}])["celery"] == QueueState(0, None)


def test_queue_states_are_unknown_when_the_broker_is_unavailable(two_queues: None) -> None:
    assert queue_states.parse([]) == {}


def test_queue_metrics_are_exported_and_removed_when_unknown() -> None:
    def sample(metric: str, queue: str) -> float | None:
        return REGISTRY.get_sample_value(f"flower_queue_{metric}", {"queue": queue})

    queue_states.export({"celery": QueueState(7, 0), "dead-letters": QueueState(1, None)})
    assert (sample("messages_ready", "celery"), sample("consumers", "celery")) == (7, 0)
    assert (sample("messages_ready", "dead-letters"), sample("consumers", "dead-letters")) == (1, None)
    queue_states.export({})
    assert (sample("messages_ready", "celery"), sample("consumers", "celery")) == (None, None)


@pytest.mark.parametrize("minutes", [5, 7, 15, 60, 61, 360, LONGEST])
def test_series_cover_the_whole_period(minutes: int) -> None:
    stats = Stats()
    observe(stats, "succeeded", time=NOW - minutes * 60 + 120)
    observe(stats, "succeeded", time=NOW - 600 if minutes > 10 else NOW - 10)
    report = stats.report(NOW, minutes, ALIVE)
    assert len({len(values) for values in report["series"].values()}) == 1
    assert len(report["series"]["time"]) <= POINTS
    assert report["series"]["time"][-1] <= NOW
    assert sum(report["series"]["succeeded"]) == report["total"]["succeeded"] == 2


def test_buckets_are_discarded_after_one_day() -> None:
    stats = Stats()
    for hour in range(48):
        observe(stats, "succeeded", time=NOW - (48 - hour) * 3600 + 1)
    assert stats.report(NOW, LONGEST, ALIVE)["total"]["succeeded"] == 24
    observe(stats, "succeeded", time=NOW - 90 * 3600)  # from a host with a wrong clock
    assert stats.report(NOW, LONGEST, ALIVE)["total"]["succeeded"] == 24


def test_restore_counts_ended_and_running_tasks() -> None:
    stats = Stats()
    worker = SimpleNamespace(hostname="worker@a")
    common = {"name": "add", "worker": worker, "runtime": 0.5}
    states = [("SUCCESS", NOW - 60), ("FAILURE", NOW - 30), ("STARTED", NOW - 10)]
    stats.restore(SimpleNamespace(uuid=state, state=state, timestamp=time, **common) for state, time in states)
    total = stats.report(NOW, 5, ALIVE)["total"]
    assert (total["succeeded"], total["failed"], total["active"]) == (1, 1, 1)


@pytest.mark.parametrize("minutes", [5, 60, LONGEST])
def test_series_are_constant_under_constant_load(minutes: int) -> None:
    stats = Stats()
    for second in range(0, (minutes + 10) * 60, 5):
        observe(stats, "succeeded", time=NOW + 7 - (minutes + 10) * 60 + second)
    series = stats.report(NOW + 7, minutes, ALIVE)["series"]["succeeded"]
    assert len(set(series)) == 1


def test_pairs_are_grouped_as_other_when_there_are_too_many() -> None:
    stats = Stats()
    for number in range(MAX_SERIES + 10):
        observe(stats, "succeeded", name=f"task-{number}")
    report = stats.report(NOW, 5, ALIVE)
    assert report["total"]["succeeded"] == MAX_SERIES + 10
    assert report["tasks"]["other"]["succeeded"] == 10
    assert report["workers"]["other"]["online"] is None
