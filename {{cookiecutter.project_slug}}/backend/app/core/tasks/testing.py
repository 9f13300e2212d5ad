"""Test helpers: run a task without servers, and inspect its progress and the runs it enqueued.

    runner = TaskRunner()
    assert runner.run(slow, duration=0.1) == 0.1
    assert runner.reported == [(0.0, 0.1)]
    assert runner.enqueued == []

A task that reads or writes tables needs a session: `TaskRunner(session)`.
"""

import asyncio
import inspect
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Insert, event
from sqlalchemy.engine import IteratorResult, Result
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session

from app.core.tasks import queues
from app.core.tasks.arguments import to_json
from app.core.tasks.base import RecordedTask
from app.core.tasks.context import AsyncRunContext, RunContext, Unrecorded
from app.core.tasks.history import runs


@dataclass(frozen=True)
class Enqueued:
    """A run that was enqueued, with its arguments as JSON."""

    name: str
    arguments: dict[str, Any]
    queue: str = queues.DEFAULT
    delay: timedelta = timedelta()
    priority: int = 0
    key: str | None = None


class TaskRunner(Unrecorded):
    """Runs tasks as a worker does: arguments and result pass through JSON, `enqueue` is recorded and not executed.

    Args:
        session: the task's session, an `AsyncSession` for `async def` tasks. It is flushed, never committed.
            Without one, the task's session can only enqueue.
        retries: number of attempts that failed before this one.
        tick: tick of the schedule that enqueued the run.
    """

    def __init__(
        self, session: Session | AsyncSession | None = None, retries: int = 0, tick: datetime | None = None
    ) -> None:
        self.retries = retries
        self.number = retries + 1
        self.tick = tick
        self.reported: list[tuple[float, float]] = []  # progress as (done, total), in order
        self.enqueued: list[Enqueued] = []  # runs enqueued with the task's session, in order
        self._session = session

    def run(self, task: RecordedTask[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a task (`async def` on a new event loop); return its result, or raise its exception without a retry."""
        if inspect.iscoroutinefunction(task.function):
            return asyncio.run(self.run_async(task, *args, **kwargs))
        session = self._session or Session()
        assert isinstance(session, Session), "an AsyncSession is for async def tasks"  # noqa: S101 (in tests)
        event.listen(session, "do_orm_execute", self._intercept)
        try:
            result = task.function(RunContext(self, session), **self._values(task, args, kwargs))
            session.flush()
        finally:
            event.remove(session, "do_orm_execute", self._intercept)
        return to_json(result)

    async def run_async(self, task: RecordedTask[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run an `async def` task on the current event loop and return its result; see `run`."""
        session = self._session or AsyncSession()
        assert isinstance(session, AsyncSession), "a Session is for tasks that are not async def"  # noqa: S101 (in tests)
        event.listen(session.sync_session, "do_orm_execute", self._intercept)
        try:
            result = await task.function(AsyncRunContext(self, session), **self._values(task, args, kwargs))
            await session.flush()
        finally:
            event.remove(session.sync_session, "do_orm_execute", self._intercept)
        return to_json(result)

    def progress(self, done: float, total: float) -> None:
        """Record the progress."""
        self.reported.append((done, total))

    def _values(self, task: RecordedTask[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return task.arguments.parse((), task.arguments.encode(args, kwargs))

    def _intercept(self, state: ORMExecuteState) -> Result[Any] | None:
        """Record the statement of `enqueue`, and answer with the id of a run that does not exist."""
        statement = state.statement
        if not (isinstance(statement, Insert) and statement.table is runs):
            return None
        row = statement.compile().params
        # The delay is part of an expression, so its parameter has no name of its own.
        delay = next((value for value in row.values() if isinstance(value, timedelta)), timedelta())
        priority = (row.get("message") or {}).get("priority", 0)
        self.enqueued.append(Enqueued(row["name"], row["arguments"], row["queue"], delay, priority, row["key"]))
        return IteratorResult(SimpleResultMetaData(["id"]), iter([(row["id"],)]))
