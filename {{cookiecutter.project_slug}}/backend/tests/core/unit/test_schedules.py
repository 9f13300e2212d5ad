import ast
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.core.errors import ConfigurationError
from app.core.tasks import crontab, every, schedule, schedules
from app.core.tasks.attempt import Attempt
from app.core.tasks.schedules import SCHEDULES, tick_id
from tests.core.tasks import core_add

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(SCHEDULES)
    SCHEDULES.clear()
    yield
    SCHEDULES.clear()
    SCHEDULES.update(before)


def ticks(expression: str, after: datetime, count: int) -> list[str]:
    found = islice(crontab(expression, "Europe/Berlin").ticks(after.astimezone(UTC)), count)
    return [f"{tick.astimezone(BERLIN):%d %H:%M%z}" for tick in found]


def test_interval_ticks_at_multiples() -> None:
    after = datetime(2026, 1, 1, 0, 0, 30, 5, UTC)
    assert [f"{tick:%M:%S}" for tick in islice(every(20).ticks(after), 3)] == ["00:40", "01:00", "01:20"]
    assert next(every(10).ticks(after.replace(microsecond=0))) == datetime(2026, 1, 1, 0, 0, 40, tzinfo=UTC)


def test_fixed_time_in_the_skipped_hour_comes_at_its_end() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", before, 2) == ["29 03:00+0200", "30 02:30+0200"]


def test_fixed_time_in_the_repeated_hour_comes_once() -> None:
    before = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", before, 2) == ["25 02:30+0200", "26 02:30+0100"]
    second_pass = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert ticks("30 2 * * *", second_pass, 1) == ["26 02:30+0100"]


def test_minutely_ticks_follow_elapsed_time() -> None:
    autumn = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    expected = ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"]
    assert ticks("*/30 * * * *", autumn, 5) == expected
    assert ticks("*/30 * * * *", datetime(2026, 3, 29, 1, 45, tzinfo=BERLIN), 2) == ["29 03:00+0200", "29 03:30+0200"]


@pytest.mark.parametrize("rule", [every(7), crontab("*/7 3,4 * * *", "Europe/Berlin")])
def test_ticks_do_not_depend_on_the_start(rule: every | crontab) -> None:
    found = list(islice(rule.ticks(datetime(2026, 10, 24, tzinfo=UTC)), 40))
    for first, second in pairwise(found):
        assert next(rule.ticks(first)) == second


def test_tick_is_read_from_the_id() -> None:
    tick = datetime(2026, 1, 31, 6, tzinfo=UTC)
    assert Attempt(tick_id("report", tick), 0, "").tick == tick
    assert tick_id("report", tick) != tick_id("reports", tick)
    assert Attempt("0b0e0f5c-6a0e-4a57-8a3e-111111111111", 0, "").tick is None
    assert Attempt("by-hand", 0, "").tick is None


@pytest.mark.parametrize(
    ("rule", "options", "problem"),
    [
        (crontab("0 0 30 2 *"), {}, "never matches"),
        (crontab("0 0 * *"), {}, "never matches"),
        (crontab("0 0 0 * * *"), {}, "never matches"),
        (crontab("61 0 * * *"), {}, "never matches"),
        (crontab("0 0 * * *", "Europe/Berlim"), {}, "unknown time zone"),
        (crontab("0 0 * * *", "../etc"), {}, "unknown time zone"),
        (every(0), {}, "whole number of seconds"),
        (every(10**9), {}, "whole number of seconds"),
        (every(60), {"arguments": {"x": 1}}, "arguments: y: Field required"),
        (every(60), {"arguments": {"x": 1, "y": 2, "z": 3}}, "arguments: z: Extra inputs"),
        (every(60), {"grace": 1}, "grace: 1 is not"),
        (every(60), {"name": "a/b"}, "the name is invalid"),
    ],
)
def test_invalid_schedule_is_rejected(rule: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        schedule(core_add, rule, **{"arguments": {"x": 1, "y": 2}, **options})
    assert "\n" not in str(caught.value)
    assert not SCHEDULES


def test_taken_name_is_rejected() -> None:
    schedule(core_add, every(60), arguments={"x": 1, "y": 2})
    with pytest.raises(ConfigurationError, match="schedule core_add: the name is taken"):
        schedule(core_add, every(30), arguments={"x": 1, "y": 2})


def test_no_clock_of_the_process_is_read() -> None:
    tree = ast.parse(inspect.getsource(schedules))
    read = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in {"today", "utcnow"}
    }
    clocks = {"datetime", "time", "date"}
    read |= {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in clocks
    }
    assert read == {"datetime.fromtimestamp"}  # of 0, the epoch
