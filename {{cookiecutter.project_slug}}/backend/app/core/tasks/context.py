"""The first argument of every task: the run it belongs to, and a database session that commits with its end."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import Update, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core import database
from app.core.tasks.attempt import ClaimLostError, deciding


class Recorder(Protocol):
    """The attempt behind a context: one that is recorded in the history, or a stand-in."""

    id: str
    retries: int
    number: int

    def progress(self, done: float, total: float) -> None:
        """Record the progress."""

    def encode(self, result: Any) -> Any:
        """Return a result as it is recorded."""

    def success(self, result: Any) -> tuple[Update, dict[str, Any]] | None:
        """Return the statement that ends the run as SUCCESS and its parameters, or nothing if there is no row."""

    def succeed(self, result: Any) -> None:
        """End the run as SUCCESS."""


class Unrecorded:
    """The stand-in for a direct call of a task: nothing is recorded."""

    id = ""
    number = 1

    def __init__(self, retries: int = 0) -> None:
        self.retries = retries

    def progress(self, done: float, total: float) -> None:
        """Record nothing."""

    def encode(self, result: Any) -> Any:
        """Return the result as it is."""
        return result

    def success(self, result: Any) -> None:
        """Return no statement."""

    def succeed(self, result: Any) -> None:
        """Record nothing."""


class _Context:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

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


def _reject_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        message = "run.session commits with the end of the run (remove the commit, or use begin_nested for a savepoint)"
        raise RuntimeError(message)


async def _in_thread(function: Callable[..., None], *args: Any) -> None:
    """Call a function in a thread; a cancellation waits for it, because it uses the connection of the attempt."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait({call})
        raise


class RunContext(_Context):
    """One attempt at a run: the first argument of a task."""

    def __init__(self, recorder: Recorder, session: Session | None = None) -> None:
        super().__init__(recorder)
        self._session = session

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

    def close(self, *, failed: bool) -> None:
        """Release the session; after a failure its connection as well, as a statement may have been interrupted."""
        if self._session is not None:
            self._session.invalidate() if failed else self._session.close()


class AsyncRunContext(_Context):
    """One attempt at a run: the first argument of an `async def` task."""

    def __init__(self, recorder: Recorder, session: AsyncSession | None = None) -> None:
        super().__init__(recorder)
        self._session = session
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
            await _in_thread(self._recorder.progress, done, total)

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

    async def close(self, *, failed: bool) -> None:
        """Release the session; after a failure its connection as well, as a statement may have been interrupted."""
        if self._session is not None:
            await (self._session.invalidate() if failed else self._session.close())
