from typing import Any

import pytest
from pydantic import ValidationError

from app.tasks import REGISTRY
from app.tasks.base import Run, as_json, as_text, task, time_limits


class Recorder(Run):
    """A run that is in no history: what a function under test is given."""

    def __init__(self, retries: int = 0) -> None:
        super().__init__("test", retries, lambda *_args, **_fields: None)
        self.attempt = retries + 1
        self.reported: list[tuple[float, float]] = []

    def progress(self, done: float, total: float) -> None:
        self.reported.append((done, total))


def call(name: str, run: Run, **arguments: Any) -> Any:
    return REGISTRY[name].function(run, **arguments)


def test_every_module_with_a_task_is_found() -> None:
    assert {"add", "fail", "flaky", "slow"} <= set(REGISTRY)


def test_add() -> None:
    assert call("add", Recorder(), x=2, y=3) == 5


def test_slow_reports_its_progress() -> None:
    run = Recorder()
    assert call("slow", run, duration=0.1) == 0.1
    assert run.reported == [(0.0, 0.1)]


def test_fail() -> None:
    with pytest.raises(ValueError, match="on purpose"):
        call("fail", Recorder(), reason="on purpose")


def test_flaky_succeeds_after_its_failures() -> None:
    with pytest.raises(ConnectionError, match="attempt 1"):
        call("flaky", Recorder(), failures=1)
    assert call("flaky", Recorder(retries=1), failures=1) == "succeeded after 1 retries"


def test_arguments_come_from_the_signature() -> None:
    slow = REGISTRY["slow"].arguments
    assert dict(slow.model_validate({})) == {"duration": 20}
    for wrong in ({"duration": "long"}, {"duration": -1}, {"duration": float("nan")}, {"length": 1}):
        with pytest.raises(ValidationError):
            slow.model_validate(wrong)


def test_an_argument_needs_a_type_and_a_free_name() -> None:
    with pytest.raises(TypeError, match="untyped: the argument x needs a type"):

        @task()
        def untyped(run: Run, x) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            pass

    with pytest.raises(TypeError, match="many: the argument numbers"):

        @task()
        def many(run: Run, *numbers: int) -> None:
            pass

    with pytest.raises(TypeError, match="waiting: the argument wait"):

        @task()
        def waiting(run: Run, wait: float) -> None:
            pass

    assert not {"many", "untyped", "waiting"} & set(REGISTRY)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(TypeError, match="add: there is a task of that name"):

        @task()
        def add(run: Run) -> None:
            pass


def test_a_task_is_sent_and_not_called() -> None:
    with pytest.raises(TypeError, match=r"add\.delay"):
        REGISTRY["add"](x=2, y=3)


@pytest.mark.parametrize("given", [(None, 3600), (3420, None), (3420, 3600)])
def test_a_time_limit_alone_brings_the_other(given: tuple[float | None, float | None]) -> None:
    assert time_limits(*given) == {"soft_time_limit": 3420, "time_limit": 3600}


def test_a_soft_limit_above_the_hard_one_is_refused() -> None:
    with pytest.raises(ValueError, match="below the time_limit"):
        time_limits(20, 10)


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ü 😀"]}, "text", None])
def test_json_is_kept_as_it_is(value: Any) -> None:
    assert as_json(value) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a\x00b", {"deep": ["\x00"]}, "\ud800", object()])
def test_what_postgresql_cannot_keep_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        as_json(value)


def test_what_postgresql_cannot_keep_of_a_text_is_written_out() -> None:
    assert as_text("ü 😀") == "ü 😀"
    assert as_text("a\x00b \ud800") == "a\\x00b \\ud800"
