"""What makes a function a task, and what the runs of all tasks have in common.

    @task(max_retries=5)
    def shout(run: Run, text: str) -> str:
        return text.upper()

The name, the arguments and their validation come from the signature, and with them the API's `POST /tasks/shout`.
"""

import inspect
import json
import threading
import traceback
from collections.abc import Callable
from typing import Any, Concatenate, override

import structlog
from celery import Task, signals
from celery.exceptions import Ignore, Reject, TimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from kombu.utils import json as kombu_json
from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy.exc import SQLAlchemyError

from app import database, history
from app.celery_app import celery_app
from app.history import State
from app.tasks.run import NotOursError, Run

__all__ = ["REGISTRY", "RecordedTask", "Run", "task"]

logger = structlog.get_logger(__name__)

TRANSIENT = (ConnectionError, TimeoutError)


class RecordedTask(Task):  # type: ignore[type-arg]
    """A Celery task whose runs are in the history, each done once however often its message is delivered."""

    abstract = True
    function: Callable[..., Any]
    arguments: type[BaseModel]
    autoretry_for: tuple[type[Exception], ...]
    retry_backoff: int
    retry_backoff_max: int

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the message asks for, unless that is done, revoked or at work elsewhere.

        Celery takes what this returns or raises as the outcome, stores it in its result backend and acknowledges the
        message: so the end of the run is in the history before.
        """
        request = self.request
        if request.called_directly:
            message = f"{self.name} is a task: send it, for example by {self.name}.delay(...)"
            raise TypeError(message)
        run = Run(request.id or "", request.retries, self.send_event)
        with structlog.contextvars.bound_contextvars(task=self.name, task_id=run.id):
            try:
                named = self._by_name(args, kwargs)
                with run.claimed(self.name, as_json(named), request.hostname or ""):
                    return self._attempt(run, named)
            except NotOursError as error:
                return self._outcome_elsewhere(error)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = list(self.arguments.model_fields)
        surplus = {"args": args[len(names) :]} if len(args) > len(names) else {}
        return {**dict(zip(names, args, strict=False)), **kwargs, **surplus}

    def _attempt(self, run: Run, named: dict[str, Any]) -> Any:
        if run.lost_too_often:
            message = f"its worker died {run.attempt - 1 - run.retries} times over it"
            run.fail(message)
            raise WorkerLostTooOftenError(message)
        try:
            values = dict(self.arguments.model_validate(named))
            result = as_json(self.function(run, **values))
            run.succeed(result)
        except NotOursError:
            raise
        except Exception as error:
            reason = as_text("".join(traceback.format_exception_only(error)).strip())
            if isinstance(error, self.autoretry_for) and run.retries < (self.max_retries or 0):
                self._retry(run, error, reason)
            run.fail(reason, as_text(traceback.format_exc()))
            raise
        return result

    def _retry(self, run: Run, error: Exception, reason: str) -> None:
        """Send the message of the next attempt; always raises what tells Celery so."""
        # at least a second: the broker's delays count whole ones
        countdown = max(
            1,
            get_exponential_backoff_interval(
                factor=self.retry_backoff, retries=run.retries, maximum=self.retry_backoff_max, full_jitter=True
            ),
        )
        run.retry(reason, as_text(traceback.format_exc()), countdown)
        try:
            raise self.retry(exc=error, countdown=countdown)
        except Reject:
            # The broker is away. The row says when to try again, and the relay sends the message then.
            logger.warning("the relay will send the retry")
            raise Ignore from error

    def _outcome_elsewhere(self, error: NotOursError) -> Any:
        """Repeat the outcome of a run that ended before its message was acknowledged; leave alone what is another's."""
        row = error.row
        if row is not None and row.state is State.SUCCESS:
            return row.result
        logger.info("message refused", reason=str(error))
        if row is not None and row.state is State.REVOKED:
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        raise Ignore from error

    @override
    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """End a run that was killed at its hard time limit: called in the worker's main process then."""
        if isinstance(exc, TimeLimitExceeded):
            end_from_outside(task_id, State.FAILURE, f"killed at its hard time limit of {exc.args[0]:g} s")


class WorkerLostTooOftenError(Exception):
    """More workers died over a run than can be chance."""


REGISTRY: dict[str, RecordedTask] = {}
"""Every task by its name."""


def task[**P, R](
    *,
    autoretry_for: tuple[type[Exception], ...] = TRANSIENT,
    max_retries: int = 3,
    retry_backoff: int = 1,
    retry_backoff_max: int = 600,
    soft_time_limit: float | None = None,
    time_limit: float | None = None,
) -> Callable[[Callable[Concatenate[Run, P], R]], RecordedTask]:
    """Make a task of a function whose first argument is the `Run`.

    Args:
        autoretry_for: the exceptions after which another attempt may succeed; any other ends the run as FAILURE.
        max_retries: how many attempts may follow the first.
        retry_backoff: seconds before the second attempt, doubled before each that follows; a random part of it counts.
        retry_backoff_max: what that never exceeds, in seconds.
        soft_time_limit: seconds after which `celery.exceptions.SoftTimeLimitExceeded` is raised in the function.
        time_limit: seconds after which the process is killed. Given alone, either limit brings the other: 95 to 100.

    Raises:
        TypeError: the name is taken, or an argument has no type, or a name that the API needs for itself.
        ValueError: the soft limit is not below the other.
    """

    def decorate(function: Callable[Concatenate[Run, P], R]) -> RecordedTask:
        name = function.__name__
        if name in REGISTRY:
            message = f"task {name}: there is a task of that name already"
            raise TypeError(message)
        options: dict[str, Any] = {
            "name": name,
            "function": staticmethod(function),
            "arguments": _model(name, function),
            "autoretry_for": autoretry_for,
            "max_retries": max_retries,
            "retry_backoff": retry_backoff,
            "retry_backoff_max": retry_backoff_max,
            **time_limits(soft_time_limit, time_limit),
        }
        make: Callable[..., RecordedTask] = celery_app.task(bind=True, base=RecordedTask, **options)
        made = make(function)
        REGISTRY[name] = made
        return made

    return decorate


def time_limits(soft: float | None, hard: float | None) -> dict[str, float | None]:
    """Both limits, as options of a Celery task; one that is not given follows from the other.

    Raises:
        ValueError: the soft one is not below the other. Celery would begin to wait for the hard limit too late then:
            when the soft one has passed.
    """
    soft, hard = soft or (hard and 0.95 * hard), hard or (soft and soft / 0.95)
    if soft and hard and soft >= hard:
        message = f"a soft_time_limit of {soft:g} s has to be below the time_limit, {hard:g} s"
        raise ValueError(message)
    return {"soft_time_limit": soft, "time_limit": hard}


def _model(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    _run, *parameters = inspect.signature(function, eval_str=True).parameters.values()
    fields: dict[str, Any] = {}
    for parameter in parameters:
        by_name = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        free = parameter.name != "wait" and not parameter.name.startswith("_")
        if not (by_name and free) or parameter.annotation is parameter.empty:
            message = f"task {name}: the argument {parameter.name} needs a type, and a name other than wait or _..."
            raise TypeError(message)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    return create_model(name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def as_json(value: Any) -> Any:
    """What remains of `value` when PostgreSQL keeps it as JSON.

    Raises:
        kombu.exceptions.EncodeError, TypeError: a part of it has no form in JSON.
        ValueError: it holds a NaN, an infinity, a NUL character or half a character.
    """
    text = kombu_json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    if "\\u0000" in text:
        message = "PostgreSQL cannot keep a NUL character in JSON"
        raise ValueError(message)
    return json.loads(text)


def as_text(text: str) -> str:
    """What of `text` PostgreSQL can keep: NUL characters and halves of characters are written out."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def end_from_outside(run_id: str, state: State, error: str | None = None) -> None:
    """Note the end of a run whose process cannot do it itself; the relay finds what PostgreSQL's absence hides here.

    In a thread, because the worker's main process must not wait: it acknowledges, and keeps the connection alive.
    """

    def note() -> None:
        try:
            with database.engine().connect() as connection:
                connection.execute(history.end_from_outside(run_id, state, error))
        except SQLAlchemyError:
            logger.exception("the end of a run could not be noted", task_id=run_id, state=state)

    threading.Thread(target=note, daemon=True).start()


@signals.task_revoked.connect
def on_task_revoked(request: Any, **_: Any) -> None:
    """Note a revocation that did not come from the API but from Flower or a shell."""
    end_from_outside(request.id, State.REVOKED)
