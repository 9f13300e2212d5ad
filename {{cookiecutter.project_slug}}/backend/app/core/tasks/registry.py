"""The `@task` decorator, and every task by its name.

    @task(queue="mail", max_retries=5)
    def send_receipt(run: RunContext, order_id: int) -> None:
        ...

Name, arguments and their validation come from the signature, and with them `POST /tasks/send_receipt`.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, overload

from app.core.celery import celery_app
from app.core.tasks import queues
from app.core.tasks.arguments import arguments_of, invalid
from app.core.tasks.base import TRANSIENT, RecordedTask
from app.core.tasks.context import AsyncRunContext, RunContext

REGISTRY: dict[str, RecordedTask[..., Any]] = {}
"""Every task by its name."""

LONGEST_LIMIT = 12 * 60 * 60  # seconds


class _Decorator:
    """Makes a task of a function; the overloads keep its signature for type checkers."""

    def __init__(self, soft_time_limit: float | None, time_limit: float | None, **options: Any) -> None:
        self._soft_time_limit = soft_time_limit
        self._time_limit = time_limit
        self._options = options

    @overload
    def __call__[**P, R](
        self, function: Callable[Concatenate[AsyncRunContext, P], Coroutine[Any, Any, R]]
    ) -> RecordedTask[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__[**P, R](self, function: Callable[Concatenate[RunContext, P], R]) -> RecordedTask[P, R]: ...

    def __call__(self, function: Callable[..., Any]) -> RecordedTask[..., Any]:
        name = function.__name__
        if name in REGISTRY:
            other = REGISTRY[name].function.__module__.replace(".", "/")
            raise invalid(function, f"the name is taken by {other}.py (rename one of them)")
        context = AsyncRunContext if inspect.iscoroutinefunction(function) else RunContext
        try:
            limits = time_limits(self._soft_time_limit, self._time_limit)
        except ValueError as error:
            raise invalid(function, str(error)) from None
        options: dict[str, Any] = {
            "name": name,
            "function": staticmethod(function),
            "arguments": arguments_of(function, context),
            **self._options,
            **limits,
        }
        make: Callable[..., RecordedTask[..., Any]] = celery_app.task(bind=True, base=RecordedTask, **options)
        REGISTRY[name] = make(function)
        return REGISTRY[name]


def task(
    *,
    queue: str = queues.DEFAULT,
    endpoint: bool = True,
    autoretry_for: tuple[type[Exception], ...] = TRANSIENT,
    max_retries: int = 3,
    retry_backoff: int = 1,
    retry_backoff_max: int = 600,
    soft_time_limit: float | None = None,
    time_limit: float | None = None,
) -> _Decorator:
    """Make a task of a function whose first argument is a `RunContext`, or of an `async def` with `AsyncRunContext`.

    Args:
        queue: name of a queue in `app/features/queues.py`.
        endpoint: whether the API has `POST /tasks/<name>`.
        autoretry_for: exceptions after which another attempt may succeed; any other ends the run as FAILURE.
        max_retries: number of attempts that may follow the first.
        retry_backoff: seconds before the second attempt, doubled before each that follows, with jitter.
        retry_backoff_max: upper bound of that, in seconds.
        soft_time_limit: seconds until `celery.exceptions.SoftTimeLimitExceeded` is raised in the function; an
            `async def` task is cancelled.
        time_limit: seconds until the process is killed. If only one limit is given, the soft one is 95 % of the hard.

    Raises:
        ConfigurationError: the name is taken, or the signature or a time limit is invalid.
    """
    return _Decorator(
        soft_time_limit,
        time_limit,
        queue_name=queue,
        has_endpoint=endpoint,
        autoretry_for=autoretry_for,
        max_retries=max_retries,
        retry_backoff=retry_backoff,
        retry_backoff_max=retry_backoff_max,
    )


def time_limits(soft: float | None, hard: float | None) -> dict[str, float | None]:
    """Return both limits as options of a Celery task; the missing one follows from the other.

    Raises:
        ValueError: the soft limit is not below the hard one, whose clock Celery starts when the soft one has passed; or
            the hard one is above the broker's `consumer-timeout` in rabbitmq/definitions.json.
    """
    soft, hard = soft or (hard and 0.95 * hard), hard or (soft and soft / 0.95)
    if soft and hard and soft >= hard:
        message = f"soft_time_limit: {soft:g} s is not below the time_limit of {hard:g} s (lower it)"
        raise ValueError(message)
    if hard and hard > LONGEST_LIMIT:
        message = f"time_limit: {hard:g} s is above {LONGEST_LIMIT} s (split the task)"
        raise ValueError(message)
    return {"soft_time_limit": soft, "time_limit": hard}


def check_queues() -> None:
    """Check that every task has a queue of the list.

    Raises:
        ConfigurationError: a queue is unknown.
    """
    for each in REGISTRY.values():
        if each.queue_name not in queues.names():
            known = ", ".join(queues.names())
            problem = f'unknown queue "{each.queue_name}" (add it to app/features/queues.py, or choose from {known})'
            raise invalid(each.function, problem)


def _route(name: str, *_: object, **__: object) -> dict[str, str] | None:
    """Return the queue of a task, for messages that are sent without the outbox."""
    return {"queue": REGISTRY[name].queue_name} if name in REGISTRY else None


celery_app.conf.task_routes = (_route,)
