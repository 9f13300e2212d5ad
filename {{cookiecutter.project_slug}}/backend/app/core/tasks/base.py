"""The Celery task class behind `@task`: it claims a run, calls the function and records the outcome."""

import inspect
import threading
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, override
from uuid import uuid4

import structlog
from celery import Task, signals
from celery.exceptions import Ignore, Reject, TimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.sql.dml import ReturningInsert

from app.core import database
from app.core.tasks import history, loop
from app.core.tasks.arguments import Arguments, to_json, to_text
from app.core.tasks.attempt import LOSSES_ALLOWED, Attempt, ClaimLostError
from app.core.tasks.context import AsyncRunContext, Recorder, RunContext, Unrecorded
from app.core.tasks.history import State

logger = structlog.get_logger(__name__)

TRANSIENT = (ConnectionError, TimeoutError, OperationalError, InterfaceError)
"""Exceptions after which another attempt may succeed; the last two are SQLAlchemy's for a lost connection."""


class WorkerLostTooOftenError(Exception):
    """More workers were lost over a run than is plausible by chance."""


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

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> ReturningInsert[str]:
        """Return the statement that enqueues a run, for any session or connection; it returns the run's id.

        The run exists once the surrounding transaction commits, and then reaches a final state whatever fails.

        Raises:
            pydantic.ValidationError: an argument is missing, unknown or invalid.
            ValueError: PostgreSQL cannot store a value.
        """
        return history.enqueue(str(uuid4()), self.name, self.queue_name, self.arguments.encode(args, kwargs))

    @override
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute the run of a message, unless it has ended, was revoked or is running elsewhere.

        Celery stores the returned or raised outcome in its result backend and acknowledges the message afterwards: the
        end of the run is in the history before that. Outside a worker this calls the function, as in Celery.
        """
        request = self.request
        if request.called_directly or request.get("claimed"):  # the latter: by its own function
            called: R = self.call(Unrecorded(), args, kwargs)
            return called
        request.update(claimed=True)
        attempt = Attempt(request.id or "", request.retries, request.hostname or "")
        with structlog.contextvars.bound_contextvars(task=self.name, task_id=attempt.id):
            try:
                named = self.arguments.named(args, kwargs)
                with attempt.claimed(self.name, self.queue_name, to_json(named)):
                    result: R = self._execute(attempt, named)
                    return result
            except ClaimLostError as error:
                outcome: R = self._outcome_elsewhere(error)
                return outcome

    def call(self, recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the function with validated arguments; for an `async def` task, return the coroutine.

        Raises:
            pydantic.ValidationError: an argument is missing, unknown or invalid.
        """
        values = self.arguments.parse(args, kwargs)
        if inspect.iscoroutinefunction(self.function):
            return self._call_async(recorder, values)
        return self._call(recorder, values)

    def _call(self, recorder: Recorder, values: Mapping[str, Any]) -> Any:
        run = RunContext(recorder)
        failed = True
        try:
            result = recorder.encode(self.function(run, **values))
            run.finish(result)
            failed = False
        finally:
            run.close(failed=failed)
        return result

    async def _call_async(self, recorder: Recorder, values: Mapping[str, Any]) -> Any:
        run = AsyncRunContext(recorder)
        failed = True
        try:
            result = recorder.encode(await self.function(run, **values))
            await run.finish(result)
            failed = False
        finally:
            await run.close(failed=failed)
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
        except Exception as error:
            reason = to_text("".join(traceback.format_exception_only(error)).strip())
            if isinstance(error, self.autoretry_for) and attempt.retries < (self.max_retries or 0):
                self._retry(attempt, error, reason)
            attempt.fail(reason, to_text(traceback.format_exc()))
            raise

    def _retry(self, attempt: Attempt, error: Exception, reason: str) -> None:
        """Send the message of the next attempt, and raise the exception that Celery expects then."""
        # at least a second: native delayed delivery counts whole seconds
        countdown = max(
            1,
            get_exponential_backoff_interval(
                factor=self.retry_backoff, retries=attempt.retries, maximum=self.retry_backoff_max, full_jitter=True
            ),
        )
        attempt.retry(reason, to_text(traceback.format_exc()), countdown)
        try:
            raise self.retry(exc=error, countdown=countdown)
        except Reject:
            # The broker is unavailable. The row has the time of the next attempt, and the relay sends its message.
            logger.warning("retry left to the relay: the broker is unavailable")
            raise Ignore from error

    def _outcome_elsewhere(self, error: ClaimLostError) -> Any:
        """Return the result of a run that ended before its message was acknowledged; ignore any other message."""
        row = error.row
        if row is not None and row.state is State.SUCCESS:
            return row.result
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
        """End a run that was killed at its hard time limit; Celery calls this in the worker's main process then."""
        if isinstance(exc, TimeLimitExceeded):
            finish_externally(task_id, State.FAILURE, f"killed at its hard time limit of {exc.args[0]:g} s")


def _encodable(arguments: Any) -> Any:
    """Return arguments as JSON where pydantic can express them; Celery encodes or rejects the rest."""
    return to_jsonable_python(arguments, fallback=lambda value: value)


def finish_externally(run_id: str, state: State, error: str | None = None) -> None:
    """Record the end of a run whose process cannot; if PostgreSQL is away, the relay finds the run later.

    In a thread, because the worker's main process must not block: it acknowledges messages and sends heartbeats.
    """

    def record() -> None:
        try:
            with database.autocommit_engine().connect() as connection:
                connection.execute(history.finish_externally(run_id, state, error))
        except SQLAlchemyError:
            logger.exception("end of a run not recorded", task_id=run_id, state=state)

    threading.Thread(target=record, daemon=True).start()


@signals.task_revoked.connect
def on_task_revoked(request: Any, **_: Any) -> None:
    """Record a revocation by Flower or a shell."""
    finish_externally(request.id, State.REVOKED)
