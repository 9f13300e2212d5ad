import pytest
from pydantic import ValidationError

from app.core.tasks.testing import TaskRunner
from app.features.demo.tasks import add, fail, flaky, slow


def test_add_returns_the_sum() -> None:
    assert TaskRunner().run(add, x=2, y=3) == 5


def test_slow_reports_its_progress() -> None:
    runner = TaskRunner()
    assert runner.run(slow, duration=0.1) == 0.1
    assert runner.reported == [(0.0, 0.1)]


@pytest.mark.parametrize("duration", ["long", -1, float("nan")])
def test_slow_rejects_an_invalid_duration(duration: object) -> None:
    with pytest.raises(ValidationError, match="duration"):
        TaskRunner().run(slow, duration=duration)


def test_fail_raises_its_reason() -> None:
    with pytest.raises(ValueError, match="on purpose"):
        TaskRunner().run(fail, reason="on purpose")


def test_flaky_succeeds_after_its_failures() -> None:
    with pytest.raises(ConnectionError, match="attempt 1"):
        TaskRunner().run(flaky, failures=1)
    assert TaskRunner(retries=1).run(flaky, failures=1) == "succeeded after 1 retries"
