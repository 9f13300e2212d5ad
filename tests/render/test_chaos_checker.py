"""The checker of the chaos run notices each kind of violation in a history, and none in a correct one."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from tests.chaos import checker as checker_module
from tests.chaos.checker import LOST_AFTER, SLACK, Checker
from tests.stack.conftest import Stack
from tests.stack.faults.ledger import Ledger

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATE = LOST_AFTER + SLACK + 1


def row(run_id: str = "id", *, started: float | None = None, published: float | None = None, **values: Any) -> Any:
    """Return a row of the history; times are seconds before now."""
    ago = {"started_at": started, "published_at": published}
    times = {name: seconds and NOW - timedelta(seconds=seconds) for name, seconds in ago.items()}
    fields = dict.fromkeys(("result", "error", "ended_at", "next_try_at", "outbox_action"))
    counts = {"attempts": 0, "retries": 0, "losses": 0, "publish_count": 1}
    return {"id": run_id, "name": "add", "state": "PENDING", "seen_at": NOW} | fields | counts | times | values


class Database:
    """A database that returns given samples, one after another."""

    def __init__(self, *samples: list[Any]) -> None:
        self._samples: Iterator[list[Any]] = iter(samples)

    def execute(self, _: str) -> "Database":
        return self

    def fetchall(self) -> list[Any]:
        return next(self._samples)


def violations(*samples: list[Any], away: object = None) -> set[str]:
    """Return the invariants that are violated by a sequence of samples of the history."""
    checker = Checker(cast("Stack", None), cast("Ledger", None), stalled=60)
    checker.executor = cast("Any", SimpleNamespace(broker_away=away))
    database = cast("Any", Database(*samples))
    for _ in samples:
        checker._sample(database, complete=True)
    return {invariant for invariant, _ in checker.violations}


def test_correct_history_has_no_violation() -> None:
    pending = row(published=5)
    started = row(published=5, started=4, state="STARTED", attempts=1)
    ended = row(published=5, started=4, state="SUCCESS", attempts=1, result=2, ended_at=NOW)
    assert violations([pending], [started], [ended], [ended]) == set()


@pytest.mark.parametrize(
    ("samples", "invariant"),
    [
        (
            [[row(state="SUCCESS", result=1, ended_at=NOW)], [row(state="SUCCESS", result=2, ended_at=NOW)]],
            "an ended run never changes",
        ),
        (
            [[row(state="STARTED", started=2, attempts=2)], [row(state="STARTED", started=1, attempts=1)]],
            "attempts never decrease",
        ),
        ([[row(state="STARTED", started=61, attempts=1)]], "an interrupted attempt is repeated"),
        (
            [
                [
                    row("lost", published=LATE + more),
                    row("next", state="STARTED", published=0.1, started=0.1, attempts=1),
                ]
                for more in (0, 21)
            ],
            "a lost message is sent again",
        ),
    ],
)
def test_violation_is_noticed(samples: Any, invariant: str) -> None:
    assert violations(*samples) == {invariant}


def test_publication_without_a_broker_is_noticed() -> None:
    later = row(published=-1)
    assert violations([row(published=5)], [later], away="cut") == {"a published message is confirmed"}
    assert violations([row(published=5)], [later], away=None) == set()


def test_checker_without_samples_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "LONGEST_GAP", 0.0)
    checker = Checker(cast("Stack", None), cast("Ledger", None), stalled=60)

    def connect() -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr(checker, "_connect", connect)
    checker.start()
    try:
        assert checker.found.wait(30)
    finally:
        checker.stop()
    assert {invariant for invariant, _ in checker.violations} == {"the checker works"}


@pytest.mark.parametrize(("messages", "found"), [(0, {"a lost message is sent again"}), (1, set())])
def test_lost_message_is_noticed_at_the_end_once_its_queue_stays_empty(
    monkeypatch: pytest.MonkeyPatch, messages: int, found: set[str]
) -> None:
    monkeypatch.setattr(checker_module, "EMPTY_FOR", 0.0)
    monkeypatch.setattr(checker_module, "DRAIN", 3.0)
    checker = Checker(cast("Stack", None), cast("Ledger", None), stalled=60)
    database = Database(*[[row("lost", published=LATE)]] * 9)
    monkeypatch.setattr(checker, "_connect", lambda: contextlib.nullcontext(database))
    monkeypatch.setattr(checker, "_messages", lambda: messages)
    checker.drain()
    assert {invariant for invariant, _ in checker.violations} == found


def test_end_waits_for_a_run_whose_message_was_lost_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "DRAIN", 3.0)
    checker = Checker(cast("Stack", None), cast("Ledger", None), stalled=60)
    database = Database(*[[row("lost", published=LATE, publish_count=5)]] * 3, [])
    monkeypatch.setattr(checker, "_connect", lambda: contextlib.nullcontext(database))
    monkeypatch.setattr(checker, "_messages", lambda: 0)
    checker.drain()
    assert list(database._samples) == []
    assert checker.violations == {}


def test_report_has_the_first_violations_of_each_invariant() -> None:
    checker = Checker(cast("Stack", None), cast("Ledger", None), stalled=60)
    for number in range(8):
        checker.violate("every run ends", f"run-{number}")
    lines = checker.report()
    assert len(lines) == 6
    assert "run-4" in lines[4]
    assert lines[5] == "VIOLATION every run ends: 3 more"
