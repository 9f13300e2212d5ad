"""The Celery task class behind `@task`: it claims a run, calls the function and records the outcome."""

import contextlib
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, override
from uuid import uuid4

import structlog
from celery import Task, signals
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, TimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from opentelemetry.trace import SpanKind
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy import Executable
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.dml import ReturningInsert

from app.core import database, logs, tracing
from app.core.tasks import history, loop, queues
from app.core.tasks.arguments import Arguments, to_json, to_text
from app.core.tasks.attempt import Attempt, ClaimLostError, UndecidedError
from app.core.tasks.context import AsyncRunContext, RunContext, Unrecorded
from app.core.tasks.history import ENQUEUED_HEADER, PARKED_HEADER, State

logger = structlog.get_logger(__name__)

TRANSIENT = (ConnectionError, TimeoutError)
"""Exceptions after which another attempt may succeed."""

LOSSES_ALLOWED = 5
"""Worker losses (killed, out of memory) after which a run is started again, in addition to its own retries."""

SKEW_RETRIES, SKEW_PAUSE = 60, 10.0
"""Retries of a run whose arguments another version of its task has, and seconds between them: 10 minutes in all."""

LONGEST_DELAY = timedelta(days=366)
LONGEST_KEY = 255  # characters
SLACK = timedelta(seconds=30)  # between a task's hard time limit and the deadline of its run
REQUEUE_PAUSE = 5.0  # seconds before an undecided message is requeued; the broker counts the deliveries

KEPT = (
    "chain",
    "callbacks",
    "errbacks",
    "chord",
    "group_index",
    "root_id",
    "parent_id",
    "reply_to",
    "shadow",
    "time_limit",
    "soft_time_limit",
    "expires",
)
"""Properties that a message keeps when it is sent again, in addition to its group and priority."""


def to_delay(delay: float | timedelta) -> timedelta:
    """Return a delay; raises `ValueError` if it is negative or longer than `LONGEST_DELAY`."""
    length = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    if not timedelta() <= length <= LONGEST_DELAY:
        message = f"delay: {length} is invalid (use 0 to {LONGEST_DELAY.days} days)"
        raise ValueError(message)
    return length


class RetryIn(Exception):  # noqa: N818 (an instruction, not an error)
    """Raised by a task to end its attempt, and to start the next one after a time; it counts as a retry.

    Args:
        delay: seconds, or a `timedelta`; at most 366 days.
        reason: is recorded as the error of the attempt.
    """

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        self.delay = to_delay(delay)
        super().__init__(reason or f"again in {self.delay}")


class WorkerLostTooOftenError(Exception):
    """More workers were lost over a run than is plausible by chance."""


class TaskAbortedError(Exception):
    """A task raised `MemoryError`, with which Celery would stop the worker, or an exception that it does not record."""


class EarlierFailureError(Exception):
    """An earlier delivery of the message ended the run as FAILURE."""


@dataclass(frozen=True)
class Options[**P]:
    """Options of a run, which are not arguments of its task."""

    name: str
    arguments: type[Arguments]
    queue: str
    delay: timedelta
    priority: int
    key: str | None

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> ReturningInsert[str]:
        """Return the statement that enqueues a run, as `RecordedTask.enqueue`."""
        arguments = self.arguments.encode(args, kwargs)
        options: dict[str, Any] = {"delay": self.delay, "priority": self.priority, "key": self.key}
        return history.enqueue(str(uuid4()), self.name, self.queue, arguments, **options, **logs.origin())


class RecordedTask[**P, R](Task[P, R]):
    """A Celery task with a row in the history for each run; a run is executed once however often it is delivered."""

    abstract = True
    function: Callable[..., Any]
    arguments: type[Arguments]
    queue_name: str
    has_endpoint: bool
    autoretry_for: tuple[type[Exception], ...]
    retry_backoff: int
    retry_backoff_max: int
    node = ""
    """Celery's name of the worker that this process belongs to."""
    succeeded = ""
    """The last run that this process has ended as SUCCESS."""

    def options(
        self, *, delay: float | timedelta = 0, queue: str | None = None, priority: int = 0, key: str | None = None
    ) -> Options[P]:
        """Return options for a run; their `enqueue` takes the arguments of the task.

        Args:
            delay: seconds until the run starts, at the earliest, or a `timedelta`; at most 366 days.
            queue: name of a queue in `app/features/queues.py`.
            priority: 0 to 9; of the runs that wait in a queue, those with the highest priority start first.
            key: 1 to 255 characters; while an unfinished run of the task has this key, no other is enqueued, and the
                statement returns no id.

        Raises:
            ValueError: an option is invalid.
        """
        if queue is not None and queue not in queues.names():
            message = f'queue: unknown queue "{queue}" (choose from {", ".join(queues.names())})'
            raise ValueError(message)
        if priority not in range(queues.HIGHEST_PRIORITY + 1):
            message = f"priority: {priority} is invalid (use 0 to {queues.HIGHEST_PRIORITY})"
            raise ValueError(message)
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            message = f"key: {len(key)} characters are invalid (use 1 to {LONGEST_KEY})"
            raise ValueError(message)
        return Options(self.name, self.arguments, queue or self.queue_name, to_delay(delay), priority, key)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> ReturningInsert[str]:
        """Return the statement that enqueues a run, for any session or connection; it returns the run's id.

        The run exists once the surrounding transaction commits, and then reaches a final state whatever fails.

        Raises:
            pydantic.ValidationError: an argument is missing, unknown or invalid.
            ValueError: PostgreSQL cannot store a value.
        """
        return self.options().enqueue(*args, **kwargs)

    @override
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute the run of a message, unless it has ended, was revoked or is running elsewhere.

        Celery stores the returned or raised outcome in its result backend and acknowledges the message afterwards: the
        end of the run is in the history before that. Outside a worker this calls the function, as in Celery.
        """
        request = self.request
        if request.called_directly or request.get("claimed"):  # the latter: by its own function
            called: R = self.call(Unrecorded(), args, kwargs)
            return called
        parent = getattr(request, tracing.HEADER, None)
        with tracing.span(f"run {self.name}", SpanKind.CONSUMER, parent, **{"messaging.message.id": request.id or ""}):
            return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        request = self.request
        attempt = Attempt(request.id or "", request.retries, request.hostname or "")
        self.succeeded = ""  # the run may be a retry of the last one
        log_context = dict(structlog.contextvars.bind_contextvars(task=self.name, task_id=attempt.id))
        request.update(claimed=True, log_context=log_context)
        try:
            named = self.arguments.named(args, kwargs)
            self._claim(attempt, named)
            origin = {"request_id": attempt.request_id} if attempt.request_id else {}
            log_context |= structlog.contextvars.bind_contextvars(attempt=attempt.number, **origin)
            result: R = self._execute(attempt, named)
        except ClaimLostError as error:
            result = self._outcome_elsewhere(error)
        except UndecidedError as error:
            logger.warning("message requeued: PostgreSQL is unavailable", error=str(error.__cause__))
            database.become_owner()  # the run must not look as if this process still works on it
            if not isinstance(error.__cause__, SoftTimeLimitExceeded):  # the hard limit is close then
                with contextlib.suppress(SoftTimeLimitExceeded):
                    time.sleep(REQUEUE_PAUSE)
            raise Reject(error, requeue=True) from error
        self.succeeded = attempt.id
        return result

    def _claim(self, attempt: Attempt, named: Mapping[str, Any]) -> None:
        request: Any = self.request
        queue = request.delivery_info["routing_key"].rpartition(".")[2]  # a delay precedes the name of the queue
        kept = {name: request.get(name) for name in KEPT}
        kept |= {"group_id": request.group, "priority": request.delivery_info.get("priority")}
        without = {"root_id": attempt.id, "reply_to": "", "priority": 0}
        limit = request.time_limit or self.time_limit or self.app.conf.task_time_limit
        attempt.claim(
            name=self.name,
            queue=queue if queue in queues.names() else self.queue_name,
            arguments=to_json(named),
            message=to_json({key: value for key, value in kept.items() if value not in (None, without.get(key))})
            or None,
            redelivered=bool(request.delivery_info.get("redelivered") or request.get(PARKED_HEADER)),
            enqueued=bool(request.get(ENQUEUED_HEADER)),
            limit=timedelta(seconds=limit) + SLACK,
        )

    def call(self, recorder: Attempt | Unrecorded, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the function with validated arguments; for an `async def` task, return the coroutine.

        Raises:
            pydantic.ValidationError: an argument is missing, unknown or invalid.
        """
        values = self.arguments.parse(args, kwargs)
        if inspect.iscoroutinefunction(self.function):
            return self._call_async(recorder, values)
        with RunContext(recorder) as run:
            result = recorder.encode(self.function(run, **values))
            run.finish(result)
            return result

    async def _call_async(self, recorder: Attempt | Unrecorded, values: Mapping[str, Any]) -> Any:
        async with AsyncRunContext(recorder) as run:
            result = recorder.encode(await self.function(run, **values))
            await run.finish(result)
            return result

    def _execute(self, attempt: Attempt, named: dict[str, Any]) -> Any:
        if attempt.losses > LOSSES_ALLOWED:
            message = f"gave up: worker lost {attempt.losses} times"
            attempt.fail(message)
            raise WorkerLostTooOftenError(message)
        try:
            result = self.call(attempt, (), named)
            return loop.run(result) if isinstance(result, Coroutine) else result
        except ClaimLostError as error:
            raise error if error.row else ClaimLostError(attempt.row()) from None
        except BaseException as error:  # asyncio.CancelledError, for example, is not an Exception
            if isinstance(error, (UndecidedError, SystemExit, KeyboardInterrupt)):
                raise
            if _follows_exit(error):  # SIGTERM is ending the process
                raise SystemExit(1) from error
            reason = to_text("".join(traceback.format_exception_only(error)).strip())
            skewed = attempt.number - 1 - attempt.retries - attempt.losses  # earlier attempts of another version
            if self._is_of_another_version(error) and skewed < SKEW_RETRIES:
                raise self._retry(attempt, error, reason, SKEW_PAUSE, is_counted=False) from error
            may_succeed = isinstance(error, (RetryIn, *self.autoretry_for)) or database.is_unavailable(error)
            if may_succeed and attempt.retries < (self.max_retries or 0):
                pause = error.delay.total_seconds() if isinstance(error, RetryIn) else None
                raise self._retry(attempt, error, reason, pause) from error
            attempt.fail(reason, to_text(traceback.format_exc()))
            if isinstance(error, MemoryError) or not isinstance(error, Exception):
                raise TaskAbortedError(reason) from error
            raise

    def _is_of_another_version(self, error: BaseException) -> bool:
        """Return whether the arguments are those of a newer or older version of the task, which another worker has."""
        if not isinstance(error, ValidationError) or error.title != self.arguments.__name__:
            return False
        return any(each["type"] in {"missing", "extra_forbidden"} for each in error.errors())

    def _retry(
        self, attempt: Attempt, error: Any, reason: str, pause: float | None = None, *, is_counted: bool = True
    ) -> Retry:
        """Record a failed attempt, whose successor the relay starts; return the exception that Celery expects.

        The next attempt starts after `pause` seconds, by default after the task's backoff. An attempt that is not
        counted is none of the task's retries.
        """
        countdown = pause
        if countdown is None:
            countdown = get_exponential_backoff_interval(
                factor=self.retry_backoff, retries=attempt.retries, maximum=self.retry_backoff_max, full_jitter=True
            )
        attempt.retry(reason, to_text(traceback.format_exc()), countdown, is_counted=is_counted)
        logger.warning("attempt failed, another follows", seconds=round(countdown, 1), exc_info=error)
        return Retry(exc=error, when=datetime.now(UTC) + timedelta(seconds=countdown))

    def _outcome_elsewhere(self, error: ClaimLostError) -> Any:
        """Repeat the outcome of a run that ended before its message was acknowledged; ignore any other message.

        Celery then stores it, and sends the callbacks, if the process was lost before it had done so.
        """
        row = error.row
        if row is not None and row.state is State.SUCCESS:
            return row.result
        if row is not None and row.state is State.FAILURE:
            raise EarlierFailureError(row.error) from None
        logger.info("message ignored", reason=str(error))
        if row is not None and row.state is State.REVOKED:
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        raise Ignore from error

    @override
    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send a message at once and without the delivery guarantee, as in Celery; prefer `enqueue`."""
        return super().apply_async(_encodable(args), _encodable(kwargs), *rest, **options)

    @override
    def signature(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Return a signature for chains, groups and chords."""
        return super().signature(_encodable(args), _encodable(kwargs), *rest, **options)

    @override
    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """End a run that was killed at its hard time limit; Celery calls this in the worker's main process then.

        Raises:
            Reject: the run has succeeded, but Celery could not publish what follows it; the message is requeued.
        """
        if task_id == self.succeeded:
            raise Reject(exc, requeue=True)
        if isinstance(exc, TimeLimitExceeded):
            limit = exc.args[0]
            reason = f"killed at its hard time limit of {limit:g} s"
            in_background(history.exceed_time_limit(task_id, self.node, timedelta(seconds=limit), reason))


def _follows_exit(error: BaseException | None) -> bool:
    """Return whether an error is a `SystemExit`, or was raised while one unwound the stack, as by a cleanup."""
    return error is not None and (isinstance(error, SystemExit) or _follows_exit(error.__context__))


def _encodable(arguments: Any) -> Any:
    """Return arguments as JSON where pydantic can express them; Celery encodes or rejects the rest."""
    return to_jsonable_python(arguments, fallback=lambda value: value)


def in_background(statement: Executable) -> threading.Thread:
    """Execute a transition on behalf of a process that cannot; if PostgreSQL is away, the run's deadline covers it.

    In a thread, because the worker's main process must not block: it acknowledges messages and sends heartbeats.
    """

    def execute() -> None:
        try:
            with database.autocommit_engine().connect() as connection:
                connection.execute(statement)
        except SQLAlchemyError:
            logger.exception("end of a run not recorded")

    thread = threading.Thread(target=execute, daemon=True)
    thread.start()
    return thread


@signals.task_postrun.connect
def on_task_postrun(task: Any, **_: Any) -> None:
    """Unbind the run from the log: Celery has logged its end by now."""
    structlog.contextvars.reset_contextvars(**(task.request.get("log_context") or {}))


@signals.task_revoked.connect
def on_task_revoked(request: Any, **_: Any) -> None:
    """Record a revocation by Flower or a shell."""
    in_background(history.finish_externally(request.id, State.REVOKED))
