from types import SimpleNamespace
from typing import Any

import pytest

from app.monitor.figures import LONGEST, PAIRS, POINTS, Figures

NOW = 1_800_000_000.0
ALIVE = {"worker@a", "worker@b"}


def tell(figures: Figures, kind: str, time: float = NOW - 1, **task: Any) -> None:
    given: dict[str, Any] = {"name": "add", "uuid": "1", "worker": "worker@a", "runtime": 0.1} | task
    event = {"type": f"task-{kind}", "uuid": given["uuid"], "hostname": given["worker"], "local_received": time}
    figures.observe(event, SimpleNamespace(**given))


def test_nothing_was_seen() -> None:
    report = Figures().report(NOW, 5, ALIVE)
    assert report["total"]["throughput"] == 0
    assert report["total"]["success_rate"] is None
    assert report["total"]["average_runtime"] is None
    assert report["total"]["p95_runtime"] is None
    assert set(report["series"]["active"]) == {None}


def test_rates_and_run_times() -> None:
    figures = Figures()
    for number in range(1, 100):
        tell(figures, "succeeded", runtime=number / 100)
    tell(figures, "failed")
    tell(figures, "retried")
    total = figures.report(NOW, 5, ALIVE)["total"]
    assert (total["succeeded"], total["failed"], total["retried"]) == (99, 1, 1)
    assert total["throughput"] == pytest.approx(100 / 300)
    assert total["success_rate"] == pytest.approx(0.99)
    assert total["failure_rate"] == pytest.approx(0.01)
    assert total["average_runtime"] == pytest.approx(0.5)
    assert total["p95_runtime"] == pytest.approx(0.95, rel=0.05)


def test_tasks_and_workers_are_told_apart() -> None:
    figures = Figures()
    tell(figures, "succeeded")
    tell(figures, "succeeded", name="slow", worker="worker@b")
    tell(figures, "failed", name="slow", worker="worker@b")
    report = figures.report(NOW, 5, ALIVE, task="slow")
    assert report["total"]["succeeded"] == 1
    assert {name: row["succeeded"] for name, row in report["tasks"].items()} == {"add": 0, "slow": 1}
    assert {name: row["failed"] for name, row in report["workers"].items()} == {"worker@a": 0, "worker@b": 1}
    assert figures.report(NOW, 5, ALIVE, worker="worker@a")["total"]["failed"] == 0


def test_what_is_at_work_and_what_waits() -> None:
    figures = Figures()
    for uuid in ("1", "2", "3"):
        tell(figures, "started", uuid=uuid)
    tell(figures, "succeeded", uuid="1")
    figures.look(NOW - 1, {"celery": 7, "dead-letters": 1}, "celery", ALIVE)
    report = figures.report(NOW, 5, ALIVE)
    assert report["total"]["active"] == 2
    assert report["tasks"]["add"]["active"] == 2
    assert (report["series"]["active"][-1], report["series"]["queued"][-1]) == (2, 7)
    assert report["queues"] == {"celery": 7, "dead-letters": 1}
    assert figures.report(NOW, 5, set())["total"]["active"] == 0
    figures.forget_worker("worker@a")
    assert figures.report(NOW, 5, ALIVE)["total"]["active"] == 0


@pytest.mark.parametrize("minutes", [5, 7, 15, 60, 61, 360, LONGEST])
def test_every_time_has_a_point_for_each_step(minutes: int) -> None:
    figures = Figures()
    tell(figures, "succeeded", time=NOW - minutes * 60 + 120)
    tell(figures, "succeeded", time=NOW - 600 if minutes > 10 else NOW - 10)
    report = figures.report(NOW, minutes, ALIVE)
    assert len({len(values) for values in report["series"].values()}) == 1
    assert len(report["series"]["time"]) <= POINTS
    assert report["series"]["time"][-1] <= NOW
    assert sum(report["series"]["succeeded"]) == report["total"]["succeeded"] == 2


def test_what_is_older_is_forgotten() -> None:
    figures = Figures()
    for hour in range(48):
        tell(figures, "succeeded", time=NOW - (48 - hour) * 3600 + 1)
    assert figures.report(NOW, LONGEST, ALIVE)["total"]["succeeded"] == 24
    tell(figures, "succeeded", time=NOW - 90 * 3600)  # by a clock that is wrong
    assert figures.report(NOW, LONGEST, ALIVE)["total"]["succeeded"] == 24


def test_what_flower_remembers_is_counted_again() -> None:
    figures = Figures()
    worker = SimpleNamespace(hostname="worker@a")
    common = {"name": "add", "worker": worker, "runtime": 0.5}
    states = [("SUCCESS", NOW - 60), ("FAILURE", NOW - 30), ("STARTED", NOW - 10)]
    figures.restore(SimpleNamespace(uuid=state, state=state, timestamp=time, **common) for state, time in states)
    total = figures.report(NOW, 5, ALIVE)["total"]
    assert (total["succeeded"], total["failed"], total["active"]) == (1, 1, 1)


@pytest.mark.parametrize("minutes", [5, 60, LONGEST])
def test_a_steady_flow_is_drawn_as_such_from_the_first_point_to_the_last(minutes: int) -> None:
    figures = Figures()
    for second in range(0, (minutes + 10) * 60, 5):
        tell(figures, "succeeded", time=NOW + 7 - (minutes + 10) * 60 + second)
    series = figures.report(NOW + 7, minutes, ALIVE)["series"]["succeeded"]
    assert len(set(series)) == 1


def test_more_tasks_and_workers_than_are_told_apart_are_others() -> None:
    figures = Figures()
    for number in range(PAIRS + 10):
        tell(figures, "succeeded", name=f"task-{number}")
    report = figures.report(NOW, 5, ALIVE)
    assert report["total"]["succeeded"] == PAIRS + 10
    assert report["tasks"]["other"]["succeeded"] == 10
