"""The first argument of every task: the run it belongs to, and a database session that commits with its end."""

import asyncio
from datetime import datetime
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core import database
from app.core.tasks.attempt import Attempt, ClaimLostError, deciding


class Unrecorded:
    """The stand-in for an attempt in a direct call of a task: nothing is recorded."""

    id = ""
    retries = 0
    number = 1
    tick: datetime | None = None

    def progress(self, done: float, total: float) -> None:
        """Record nothing."""

    def encode(self, result: Any) -> Any:
        """Return the result as it is."""
        return result

    def success(self, result: Any) -> None:
        """Return no statement."""

    def succeed(self, result: Any) -> None:
        """Record nothing."""


class _Context[S]:
    def __init__(self, recorder: Attempt | Unrecorded, session: S | None = None) -> None:
        self._recorder = recorder
        self._session = session

    @property
    def id(self) -> str:
        """Celery's task id; empty in a direct call."""
        return self._recorder.id

    @property
    def retries(self) -> int:
        """Number of attempts that failed before this one."""
        return self._recorder.retries

    @property
    def attempt(self) -> int:
        """Number of this attempt, counted from 1; a lost worker counts as well."""
        return self._recorder.number

    @property
    def tick(self) -> datetime | None:
        """Tick of the schedule that enqueued this run, in UTC; nothing for any other run."""
        return self._recorder.tick


def _reject_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        message = "run.session commits with the end of the run (remove the commit, or use begin_nested for a savepoint)"
        raise RuntimeError(message)


class RunContext(_Context[Session]):
    """One attempt at a run: the first argument of a task."""

    @property
    def session(self) -> Session:
        """Database session of this attempt. Its writes commit together with the end of the run, or not at all."""
        if self._session is None:
            self._session = Session(database.engine())
            event.listen(self._session, "before_commit", _reject_commit)
        return self._session

    def progress(self, done: float, total: float) -> None:
        """Report the progress of this attempt, in any unit; it is visible at once.

        Raises:
            ClaimLostError: the run has been revoked or taken over; do not catch it.
        """
        self._recorder.progress(done, total)

    def finish(self, result: Any) -> None:
        """Commit the session and end the run as SUCCESS, in one transaction.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        if self._session is None:
            self._recorder.succeed(result)
            return
        self._session.flush()
        end = self._recorder.success(result)
        with deciding():
            if end is not None and self._session.execute(*end).one_or_none() is None:
                raise ClaimLostError(None)
            event.remove(self._session, "before_commit", _reject_commit)
            self._session.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Release the session; after a failure its connection as well, as a statement may have been interrupted."""
        if self._session is not None:
            self._session.invalidate() if error else self._session.close()


class AsyncRunContext(_Context[AsyncSession]):
    """One attempt at a run: the first argument of an `async def` task."""

    def __init__(self, recorder: Attempt | Unrecorded, session: AsyncSession | None = None) -> None:
        super().__init__(recorder, session)
        self._progress = asyncio.Lock()

    @property
    def session(self) -> AsyncSession:
        """Database session of this attempt. Its writes commit together with the end of the run, or not at all."""
        if self._session is None:
            self._session = AsyncSession(database.async_engine(), expire_on_commit=False)
            event.listen(self._session.sync_session, "before_commit", _reject_commit)
        return self._session

    async def progress(self, done: float, total: float) -> None:
        """Report the progress of this attempt, in any unit; it is visible at once.

        Raises:
            ClaimLostError: the run has been revoked or taken over; do not catch it.
        """
        async with self._progress:
            call = asyncio.ensure_future(asyncio.to_thread(self._recorder.progress, done, total))
            try:
                await asyncio.shield(call)
            except asyncio.CancelledError:
                await asyncio.wait({call})  # it uses the connection of the attempt
                raise

    async def finish(self, result: Any) -> None:
        """Commit the session and end the run as SUCCESS, in one transaction.

        Raises:
            ClaimLostError: the run has been revoked or taken over.
        """
        if self._session is None:
            with deciding(asyncio.CancelledError):
                await asyncio.shield(asyncio.to_thread(self._recorder.succeed, result))
            return
        await self._session.flush()
        end = self._recorder.success(result)
        with deciding(asyncio.CancelledError):
            if end is not None and (await self._session.execute(*end)).one_or_none() is None:
                raise ClaimLostError(None)
            event.remove(self._session.sync_session, "before_commit", _reject_commit)
            await self._session.commit()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Release the session; after a failure its connection as well, as a statement may have been interrupted."""
        if self._session is not None:
            await (self._session.invalidate() if error else self._session.close())
