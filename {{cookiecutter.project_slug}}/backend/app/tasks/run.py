"""One attempt at a run: its claim on the row, and what it writes there."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Connection, Executable, Row, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from tenacity import RetryCallState, retry, retry_if_exception_type, wait_random_exponential

from app import database, history
from app.history import State

logger = structlog.get_logger(__name__)

LOSSES_ALLOWED = 5
"""How often a run may lose its worker (killed, out of memory) and start again, besides its own retries."""


class NotOursError(Exception):
    """The run is not, or no longer, this attempt's to work on; `row` is what the history says of it."""

    def __init__(self, row: Row[Any] | None) -> None:
        super().__init__(f"the run is {row.state if row else 'unknown'}")
        self.row = row


def _log_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("waiting for PostgreSQL", attempt=state.attempt_number, error=str(error))


_until_postgresql_answers = retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    before_sleep=_log_waiting,
)


class Run:
    """One attempt at a run, which this process has claimed. Tasks get it as their first argument."""

    def __init__(self, run_id: str, retries: int, send_event: Callable[..., object]) -> None:
        self.id = run_id
        self.retries = retries
        self.attempt = 0
        """Counted from 1, whatever ended the attempts before: an error or a killed worker."""
        self._send_event = send_event
        self._session: Connection | None = None
        self._locked = False

    # ---- for tasks

    def progress(self, done: float, total: float) -> None:
        """Tell the history and Flower how far this attempt has come, in any unit.

        Raises:
            NotOursError: the run was revoked or taken over meanwhile; let it pass.
        """
        self._change(State.STARTED, history.progress(self.id, self.attempt, done, total))
        try:
            self._send_event("task-progress", current=done, total=total, result=f"{done:g}/{total:g}")
        except (BrokerError, OSError) as error:
            logger.warning("Flower does not hear of the progress", error=str(error))

    # ---- for what all tasks have in common

    @contextmanager
    def claimed(self, name: str, arguments: Mapping[str, Any], worker: str) -> Iterator[None]:
        """Hold the claim on the run for the length of a block, in which the attempt works.

        The claim is an advisory lock of this process's own session with PostgreSQL, which ends with the process however
        that ends, and a row that says STARTED. So a STARTED run whose lock is free has lost its worker and may be
        claimed again, and one whose lock is held is at work.

        Raises:
            NotOursError: another message stands for the run, or it has ended.
        """
        try:
            while not self._lock():
                self._wait_for_owner()
            attempt = self._execute(history.claim(self.id, name, arguments, self.retries, worker)).scalar_one_or_none()
            if attempt is None:
                raise NotOursError(self._row())
            self.attempt = attempt
            yield
        finally:
            self._unlock()

    def succeed(self, result: Any) -> None:
        """End the run as SUCCESS."""
        self._change(State.SUCCESS, history.succeed(self.id, self.attempt, result))

    def fail(self, error: str, traceback: str | None = None) -> None:
        """End the run as FAILURE."""
        self._change(State.FAILURE, history.fail(self.id, self.attempt, error, traceback))

    def retry(self, error: str, traceback: str, countdown: float) -> None:
        """Note that a message with one more retry starts the next attempt in `countdown` seconds."""
        statement = history.retry(
            self.id, self.attempt, retries=self.retries + 1, error=error, traceback=traceback, countdown=countdown
        )
        self._change(State.RETRY, statement)

    @property
    def lost_too_often(self) -> bool:
        """Whether more workers died over this run than can be chance."""
        return self.attempt - 1 - self.retries > LOSSES_ALLOWED

    # ---- the session

    def _wait_for_owner(self) -> None:
        """Return when it is time to ask for the lock again.

        Raises:
            NotOursError: the owner of the lock is at work on the very run that our message stands for.
        """
        row = self._row()
        if row is not None and (row.state not in history.UNFINISHED or row.retries >= self.retries):
            starting_or_letting_go = row.state in {State.PENDING, State.RETRY}
            if not starting_or_letting_go:
                raise NotOursError(row)
        time.sleep(0.05)

    def _row(self) -> Row[Any] | None:
        row: Row[Any] | None = self._execute(history.find(self.id)).one_or_none()
        return row

    def _change(self, state: State, statement: Executable) -> None:
        if self._execute(statement).one_or_none() is not None:
            return
        row = self._row()
        # A session that was cut after the change and before the answer makes us ask twice: then it is done already.
        if row is None or (row.state, row.attempts) != (state, self.attempt):
            raise NotOursError(row)

    def _lock(self) -> bool:
        self._locked = bool(self._execute(select(history.try_lock(self.id))).scalar_one())
        return self._locked

    @_until_postgresql_answers
    def _execute(self, statement: Executable) -> Any:
        """Run one statement; on a new session, with the lock of the old one, if that was cut."""
        if self._session is None:
            self._session = database.engine().connect()
            if self._locked:
                self._lock_again(self._session)
        try:
            return self._session.execute(statement)
        except BaseException as error:
            # A statement that PostgreSQL refused leaves a session to use; one that a time limit interrupted does not.
            if not isinstance(error, DBAPIError) or error.connection_invalidated or self._session.invalidated:
                session, self._session = self._session, None
                session.invalidate()
                session.close()
            raise

    def _lock_again(self, session: Connection) -> None:
        """Take the lock on a new session; PostgreSQL may need a while to notice the end of the old one.

        Raises:
            NotOursError: another has taken it meanwhile.
        """
        for _ in range(100):
            if session.execute(select(history.try_lock(self.id))).scalar_one():
                return
            time.sleep(0.1)
        raise NotOursError(session.execute(history.find(self.id)).one_or_none())

    def _unlock(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.execute(select(history.unlock_all()))
        except SQLAlchemyError:
            session.invalidate()  # the lock ends with the session
        session.close()
