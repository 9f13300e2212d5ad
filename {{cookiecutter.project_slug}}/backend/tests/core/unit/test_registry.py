from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from app.core.errors import ConfigurationError
from app.core.tasks import AsyncRunContext, RunContext, registry, task
from app.core.tasks.registry import REGISTRY, time_limits
from tests.core.tasks import core_add as taken


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the registry by a copy for each test."""
    monkeypatch.setattr(registry, "REGISTRY", dict(REGISTRY))


def untyped(run: RunContext, x) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    pass


def many(run: RunContext, *numbers: int) -> None:
    pass


def waiting(run: RunContext, wait: float) -> None:
    pass


def hidden(run: RunContext, _x: float) -> None:
    pass


def shadowing(run: RunContext, parse: str) -> None:
    pass


def callback(run: RunContext, function: Callable[[], None]) -> None:
    pass


def secret(run: RunContext, password: SecretStr) -> None:
    pass


def result(run: RunContext) -> Callable[[], None]:
    raise NotImplementedError


def no_context(x: float) -> None:
    pass


def nothing() -> None:
    pass


async def wrong_context(run: RunContext) -> None:
    pass


def core_add(run: RunContext) -> None:
    """Use the name of another task."""
    assert taken.name == "core_add"


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (untyped, "argument x has no type (annotate it)"),
        (many, "argument *numbers: int cannot be passed by name (use a list or a dict)"),
        (waiting, "argument wait: the name is reserved (rename it)"),
        (hidden, "argument _x: the name is reserved (rename it)"),
        (shadowing, "argument parse: the name is reserved (rename it)"),
        (callback, "argument function: Cannot generate a JsonSchema"),
        (secret, "argument password: a secret would be stored as asterisks"),
        (result, "result: Cannot generate a JsonSchema"),
        (no_context, "the first argument is not of type RunContext (add run: RunContext)"),
        (nothing, "the first argument is not of type RunContext (add run: RunContext)"),
        (wrong_context, "the first argument is not of type AsyncRunContext (add run: AsyncRunContext)"),
        (core_add, "the name is taken by tests/core/tasks.py (rename one of them)"),
    ],
)
def test_invalid_task_is_rejected_with_file_name_and_fix(function: Callable[..., Any], problem: str) -> None:
    before = dict(registry.REGISTRY)
    with pytest.raises(ConfigurationError) as rejected:
        task()(function)
    message = str(rejected.value)
    assert message.startswith(f"tests/core/unit/test_registry.py: task {function.__name__}: {problem}")
    assert "\n" not in message
    assert before == registry.REGISTRY


def test_unknown_queue_is_rejected_with_file_name_and_fix() -> None:
    @task(queue="mial")
    def misspelled(run: RunContext) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r'task misspelled: unknown queue "mial" \(add it to app/features'):
        registry.check_queues()


@pytest.mark.parametrize("given", [(None, 3600), (3420, None), (3420, 3600)])
def test_missing_time_limit_follows_from_the_other(given: tuple[float | None, float | None]) -> None:
    assert time_limits(*given) == {"soft_time_limit": 3420, "time_limit": 3600}


def test_soft_limit_above_the_hard_one_is_rejected() -> None:
    with pytest.raises(ValueError, match="not below the time_limit"):
        time_limits(20, 10)
    with pytest.raises(ValueError, match="above 43200 s"):
        time_limits(None, 50_000)


def test_invalid_time_limits_are_rejected_with_file_and_name() -> None:
    def limited(run: RunContext) -> None:
        pass

    with pytest.raises(
        ConfigurationError, match=r"test_registry\.py: task limited: soft_time_limit: 20 s is not below"
    ):
        task(soft_time_limit=20, time_limit=10)(limited)


def test_async_task_takes_an_async_context() -> None:
    @task()
    async def fine(run: AsyncRunContext) -> None:
        pass

    assert fine.name == "fine"
