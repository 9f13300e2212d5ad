"""Texts on Flower's pages of runs."""

from typing import Any

import pytest

from app.core.monitor.runs import compact, moment, seconds, to_utc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00+01:00", "2026-01-31T12:00:00+01:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_time_without_zone_is_utc(text: str, expected: str) -> None:
    assert to_utc(text) == expected


def test_time_is_shown_in_utc() -> None:
    assert moment("2026-01-31T12:00:00.5+01:00") == "2026-01-31 11:00:00"
    assert not moment(None)


def test_runtime_is_that_of_an_ended_attempt() -> None:
    run: dict[str, Any] = {"started_at": "2026-01-31T12:00:00Z", "ended_at": "2026-01-31T12:00:01.5Z"}
    assert seconds(run) == 1.5
    assert seconds(run | {"ended_at": None}) is None


def test_long_value_is_shortened() -> None:
    assert compact({"x": "ü"}) == '{"x": "ü"}'
    assert compact("x" * 200, 10) == f'"{"x" * 8}…'
