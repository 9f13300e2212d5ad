"""One attempt at a run: its claim on the row, and the transitions it writes there."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Connection, Executable, Row, Update, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from tenacity import RetryCallState, retry, retry_if_exception_type, wait_random_exponential

from app.core import database
from app.core.celery import celery_app
from app.core.tasks import history
from app.core.tasks.arguments import to_json
from app.core.tasks.history import State

logger = structlog.get_logger(__name__)

LOSSES_ALLOWED = 5
"""Worker losses (killed, out of memory) after which a run is started again, in addition to its own retries."""


class ClaimLostError(Exception):
    """The run has ended or belongs to another attempt; `row` is its row in the history."""

    def __init__(self, row: Row[Any] | None) -> None:
        super().__init__(f"the run is {row.state if row else 'unknown'}")
        self.row = row


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("PostgreSQL is unavailable, retrying", attempt=state.attempt_number, error=str(error))


_until_postgresql_answers = retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    before_sleep=_log_retry,
)


class Attempt:
    """An attempt that this process has claimed, or is about to."""

    def __init__(self, run_id: str, retries: int, worker: str) -> None:
        self.id = run_id
        self.retries = retries
        self.number = 0
        """Counted from 1, whether an error or a killed worker ended the attempts before."""
        self._worker = worker
        self._session: Connection | None = None
        self._locked = False

    @contextmanager
    def claimed(self, name: str, queue: str, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Hold the claim on the run for the length of a block, in which the function runs.

        The claim is an advisory lock of this process's own session, which PostgreSQL releases however the process
        ends, and a row that says STARTED. So a STARTED run with a free lock has lost its worker and may be claimed
        again, and one with a held lock is running.

        Raises:
            ClaimLostError: the run has ended, is running, or has a newer message.
        """
        try:
            while not self._lock():
                self._wait_for_owner()
            statement = history.claim(
                self.id, name=name, queue=queue, arguments=arguments, retries=self.retries, worker=self._worker
            )
            number = self._execute(statement).scalar_one_or_none()
            if number is None:
                raise ClaimLostError(self.row())
            self.number = number
            yield
        finally:
            self._unlock()

    def progress(self, done: float, total: float) -> None:
        """Write the progress to the history, and send it to Flower.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        self._change(State.STARTED, history.progress(self.id, self.number, done, total))
        try:
            with celery_app.events.default_dispatcher(hostname=self._worker) as dispatcher:
                shown = f"{done:g}/{total:g}"
                dispatcher.send("task-progress", uuid=self.id, current=done, total=total, result=shown)
        except (BrokerError, OSError) as error:
            logger.warning("progress not sent to Flower", error=str(error))

    def encode(self, result: Any) -> Any:
        """Return a result as JSON, as it is stored.

        Raises:
            TypeError, ValueError: it has no JSON form that PostgreSQL can store.
        """
        return to_json(result)

    def success(self, result: Any) -> Update:
        """Return the statement that ends the run as SUCCESS; it returns no row if the claim is lost."""
        return history.succeed(self.id, self.number, result)

    def succeed(self, result: Any) -> None:
        """End the run as SUCCESS.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        self._change(State.SUCCESS, self.success(result))

    def fail(self, error: str, traceback: str | None = None) -> None:
        """End the run as FAILURE.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        self._change(State.FAILURE, history.fail(self.id, self.number, error, traceback))

    def retry(self, error: str, traceback: str, countdown: float) -> None:
        """Record that a message with one more retry starts the next attempt in `countdown` seconds.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        statement = history.retry(
            self.id, self.number, retries=self.retries + 1, error=error, traceback=traceback, countdown=countdown
        )
        self._change(State.RETRY, statement)

    @property
    def losses(self) -> int:
        """Number of attempts that ended without an error of the task: their workers were lost."""
        return self.number - 1 - self.retries

    def row(self) -> Row[Any] | None:
        """Return the row of the run, or nothing."""
        row: Row[Any] | None = self._execute(history.find(self.id)).one_or_none()
        return row

    def _wait_for_owner(self) -> None:
        """Return when it is time to try the lock again.

        Raises:
            ClaimLostError: the owner of the lock is running the very attempt that this message is for.
        """
        row = self.row()
        if row is not None and (row.state not in history.UNFINISHED or row.retries >= self.retries):
            starting_or_releasing = row.state in {State.PENDING, State.RETRY}
            if not starting_or_releasing:
                raise ClaimLostError(row)
        time.sleep(0.05)

    def _change(self, state: State, statement: Executable) -> None:
        if self._execute(statement).one_or_none() is not None:
            return
        row = self.row()
        # A session cut between the change and its answer makes this attempt repeat the statement: it is done already.
        if row is None or (row.state, row.attempts) != (state, self.number):
            raise ClaimLostError(row)

    def _lock(self) -> bool:
        self._locked = bool(self._execute(select(history.try_lock(self.id))).scalar_one())
        return self._locked

    @_until_postgresql_answers
    def _execute(self, statement: Executable) -> Any:
        """Execute a statement; if the session was cut, on a new one that takes the lock again."""
        if self._session is None:
            self._session = database.autocommit_engine().connect()
            if self._locked:
                self._lock_again(self._session)
        try:
            return self._session.execute(statement)
        except BaseException as error:
            # A session is usable after a statement that PostgreSQL rejected, but not after one that was interrupted.
            if not isinstance(error, DBAPIError) or error.connection_invalidated or self._session.invalidated:
                session, self._session = self._session, None
                session.invalidate()
                session.close()
            raise

    def _lock_again(self, session: Connection) -> None:
        """Take the lock on a new session; PostgreSQL may take a while to detect the end of the old one.

        Raises:
            ClaimLostError: another attempt has taken it.
        """
        for _ in range(100):
            if session.execute(select(history.try_lock(self.id))).scalar_one():
                return
            time.sleep(0.1)
        raise ClaimLostError(session.execute(history.find(self.id)).one_or_none())

    def _unlock(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.execute(select(history.unlock_all()))
        except SQLAlchemyError:
            session.invalidate()  # the lock ends with the session
        session.close()
