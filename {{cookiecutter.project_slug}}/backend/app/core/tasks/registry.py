"""The `@task` decorator, and the registry of tasks.

    @task(queue="mail", max_retries=5)
    def send_receipt(run: RunContext, order_id: int) -> None:
        ...

Name, arguments and their validation come from the signature, and with them `POST /tasks/send_receipt`.
"""

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, overload

from app.core.celery import celery_app
from app.core.tasks import queues
from app.core.tasks.arguments import arguments_of, invalid
from app.core.tasks.base import TRANSIENT, RecordedTask
from app.core.tasks.context import AsyncRunContext, RunContext

REGISTRY: dict[str, RecordedTask[..., Any]] = {}  # by name
LONGEST_LIMIT = 12 * 60 * 60  # seconds


@dataclass(frozen=True, kw_only=True)
class task:  # noqa: N801 (a decorator)
    """Decorator for a function whose first argument is a `RunContext`, or for an `async def` with `AsyncRunContext`.

    Args:
        queue: name of a queue in `app/features/queues.py`.
        endpoint: add `POST /tasks/<name>` to the API.
        autoretry_for: exceptions after which another attempt may succeed, as after an unavailable database; any
            other ends the run as FAILURE.
        max_retries: number of attempts that may follow the first.
        retry_backoff: upper bound in seconds of the random delay before the first retry; it doubles with each retry.
        retry_backoff_max: upper limit of these delays, in seconds.
        soft_time_limit: seconds until `celery.exceptions.SoftTimeLimitExceeded` is raised in the function; an
            `async def` task is cancelled.
        time_limit: seconds until the process is killed. If only one limit is given, the soft one is 95 % of the hard.

    Raises:
        ConfigurationError: the name is taken, or the signature or a time limit is invalid.
    """

    queue: str = queues.DEFAULT
    endpoint: bool = True
    autoretry_for: tuple[type[Exception], ...] = TRANSIENT
    max_retries: int = 3
    retry_backoff: int = 1
    retry_backoff_max: int = 600
    soft_time_limit: float | None = None
    time_limit: float | None = None

    @overload  # the overloads keep the signature of the function for type checkers
    def __call__[**P, R](
        self, function: Callable[Concatenate[AsyncRunContext, P], Coroutine[Any, Any, R]]
    ) -> RecordedTask[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__[**P, R](self, function: Callable[Concatenate[RunContext, P], R]) -> RecordedTask[P, R]: ...

    def __call__(self, function: Callable[..., Any]) -> RecordedTask[..., Any]:
        """Register the function."""
        name = function.__name__
        if name in REGISTRY:
            other = REGISTRY[name].function.__module__.replace(".", "/")
            raise invalid(function, f"the name is taken by {other}.py (rename one of them)")
        context = AsyncRunContext if inspect.iscoroutinefunction(function) else RunContext
        options = vars(self) | {"name": name, "function": staticmethod(function)}
        options |= {"queue_name": options.pop("queue"), "has_endpoint": options.pop("endpoint")}
        options["arguments"] = arguments_of(function, context)
        try:
            options |= time_limits(self.soft_time_limit, self.time_limit)
        except ValueError as error:
            raise invalid(function, str(error)) from None
        make: Callable[..., RecordedTask[..., Any]] = celery_app.task(bind=True, base=RecordedTask, **options)
        REGISTRY[name] = make(function)
        return REGISTRY[name]


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
    """Raise a `ConfigurationError` if the queue of a task is not in the list."""
    for each in REGISTRY.values():
        if each.queue_name not in queues.names():
            known = ", ".join(queues.names())
            problem = f'unknown queue "{each.queue_name}" (add it to app/features/queues.py, or choose from {known})'
            raise invalid(each.function, problem)


def _route(name: str, *_: object, **__: object) -> dict[str, str] | None:
    """Return the queue of a task, for messages that are sent without the outbox."""
    return {"queue": REGISTRY[name].queue_name} if name in REGISTRY else None


celery_app.conf.task_routes = (_route,)
