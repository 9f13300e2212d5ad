"""One attempt at a run: its claim on the row, and the transitions it writes there."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Executable, Row, Update
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, retry, retry_if_exception, wait_random_exponential

from app.core import database
from app.core.tasks import events, history
from app.core.tasks.arguments import to_json
from app.core.tasks.history import State

logger = structlog.get_logger(__name__)

BUSY_TIMEOUT = 5.0  # seconds that the process of a redelivered message has to end, before the message is parked
TICK_VERSION = 8  # of a UUID: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
PARKED = timedelta(seconds=30)  # until a parked message is sent again


class ClaimLostError(Exception):
    """The run has ended or belongs to another attempt; `row` is its row in the history."""

    def __init__(self, row: Row[Any] | None) -> None:
        super().__init__(f"the run is {row.state if row else 'unknown'}")
        self.row = row


class UndecidedError(Exception):
    """PostgreSQL was unavailable until the time limit, so the outcome of the attempt is unknown; `__cause__` has it."""


@contextmanager
def deciding(*interruptions: type[BaseException]) -> Iterator[None]:
    """Turn the unavailability of PostgreSQL, or an interruption of the wait for it, into `UndecidedError`."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, (SoftTimeLimitExceeded, *interruptions)) or database.is_unavailable(error):
            raise UndecidedError from error
        raise


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning(
        "PostgreSQL is unavailable, retrying", attempt=state.attempt_number, error=str(getattr(error, "orig", error))
    )


_until_postgresql_answers = retry(
    retry=retry_if_exception(database.is_unavailable),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    before_sleep=_log_retry,
)


class Attempt:
    """An attempt that this process has claimed, or is about to.

    Every change raises `ClaimLostError` if the run has ended or belongs to another attempt. All but `progress` raise
    `UndecidedError` if PostgreSQL is unavailable.
    """

    encode = staticmethod(to_json)  # a result is stored as JSON

    def __init__(self, run_id: str, retries: int, worker: str) -> None:
        self.id = run_id
        self.retries = retries
        self.number = 0
        """Counted from 1, whether an error or a killed worker ended the attempts before."""
        self.losses = 0
        """Earlier attempts whose worker was lost."""
        self.request_id: str | None = None
        """Id of the request that enqueued the run."""
        self._worker = worker

    @property
    def tick(self) -> datetime | None:
        """Tick of a schedule, as in the id of its run (see `schedules.tick_id`); nothing for any other run."""
        try:
            run_id = UUID(self.id)
        except ValueError:
            return None
        return datetime.fromtimestamp(run_id.int >> 80, UTC) if run_id.version == TICK_VERSION else None

    def claim(self, *, redelivered: bool, enqueued: bool, **values: Any) -> None:
        """Claim the run, unless it has a newer message; `values` are further parameters of `history.CLAIM`.

        The message of a run that was `enqueued`, and has no row any more, starts nothing.
        """
        values |= {"id": self.id, "retries": self.retries, "worker": self._worker, "owner": database.owner()}
        deadline = time.monotonic() + BUSY_TIMEOUT
        with deciding():
            while (claimed := self._execute(history.CLAIM, redelivered=redelivered, **values)) is None:
                is_held = self._hold(values, enqueued=enqueued)
                row = self.row()
                if not is_held and self._is_free(row, enqueued=enqueued):
                    continue  # the queue was resumed between the two statements
                is_busy = redelivered and row is not None and row.state is State.STARTED
                if not is_busy:
                    raise ClaimLostError(row)
                if time.monotonic() > deadline:
                    self._execute(history.park(self.id, PARKED))
                    raise ClaimLostError(row)
                time.sleep(0.25)
            if enqueued and claimed.is_new:
                self._execute(history.discard(self.id))
                raise ClaimLostError(None)
            self.number, self.losses, self.request_id = claimed.attempts, claimed.losses, claimed.request_id

    def _hold(self, values: Mapping[str, Any], *, enqueued: bool) -> bool:
        """Return the run to the outbox if its queue is paused; an `enqueued` message creates no row for it."""
        message = {"run_id": self.id, "message_retries": self.retries, "message_queue": values["queue"]}
        held = self._execute(history.HOLD, **message)
        if held is None and not enqueued:
            held = self._execute(history.HOLD_NEW, **{name: values[name] for name in history.RECEIVED})
        return held is not None

    def _is_free(self, row: Row[Any] | None, *, enqueued: bool) -> bool:
        """Return whether the message may start the run, unless its queue is paused."""
        if row is None:
            return not enqueued
        is_waiting = row.state in {State.PENDING, State.RETRY} and row.outbox_action is None
        return is_waiting and row.retries <= self.retries

    def progress(self, done: float, total: float) -> None:
        """Write the progress to the history, and send it to Flower."""
        self._change(State.STARTED, history.PROGRESS, progress={"done": done, "total": total})
        shown = f"{done:g}/{total:g}"
        events.send(self._worker, "task-progress", uuid=self.id, current=done, total=total, result=shown)

    def success(self, result: Any) -> tuple[Update, dict[str, Any]]:
        """Return the statement that ends the run as SUCCESS, and its parameters; no row: the claim is lost."""
        return history.SUCCEED, {"run_id": self.id, "attempt": self.number, "result": result}

    def succeed(self, result: Any) -> None:
        """End the run as SUCCESS."""
        self._end(State.SUCCESS, history.SUCCEED, result=result)

    def fail(self, error: str, traceback: str | None = None) -> None:
        """End the run as FAILURE."""
        self._end(State.FAILURE, history.FAIL, error=error, traceback=traceback)

    def retry(self, error: str, traceback: str, countdown: float, *, is_counted: bool = True) -> None:
        """Record a failed attempt; the relay sends the message of the next in `countdown` seconds."""
        values = {"retries": self.retries + is_counted, "countdown": timedelta(seconds=countdown)}
        self._end(State.RETRY, history.RETRY, error=error, traceback=traceback, **values)

    def row(self) -> Row[Any] | None:
        """Return the row of the run, or nothing."""
        return self._execute(history.find(self.id))

    def _end(self, state: State, statement: Executable, **values: Any) -> None:
        with deciding():
            self._change(state, statement, **values)

    def _change(self, state: State, statement: Executable, **values: Any) -> None:
        if self._execute(statement, run_id=self.id, attempt=self.number, **values) is not None:
            return
        row = self.row()
        # A session cut between the change and its answer makes this attempt repeat the statement: it is done already.
        if row is None or (row.state, row.attempts) != (state, self.number):
            raise ClaimLostError(row)

    @_until_postgresql_answers
    def _execute(self, statement: Executable, **values: Any) -> Row[Any] | None:
        """Execute a statement and return its row, if it has one; while PostgreSQL is unavailable, again and again."""
        with database.autocommit_engine().connect() as connection:
            try:
                row: Row[Any] | None = connection.execute(statement, values).one_or_none()
            except BaseException as error:
                # An interrupted statement leaves an unusable connection, a read-only server a useless one.
                if not isinstance(error, DBAPIError) or database.is_unavailable(error):
                    connection.invalidate()
                raise
            return row
