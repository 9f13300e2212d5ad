"""List, get and revoke runs."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, HTTPException, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy import Executable, Row
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.api.problems import COMMON, responses
from app.core.api.transaction import CurrentRelay
from app.core.database import async_engine
from app.core.tasks import history
from app.core.tasks.history import UNFINISHED, State

router = APIRouter(prefix="/tasks", tags=["tasks"], responses=COMMON)

TIMEOUT = 10.0  # seconds that the database has to answer


class Progress(BaseModel):
    """Progress of the current attempt, in the task's own unit."""

    done: float
    total: float


class TaskRun(BaseModel):
    """One run of a task."""

    model_config = ConfigDict(from_attributes=True)

    task_id: str = Field(validation_alias="id")
    name: str
    queue: str
    arguments: dict[str, JsonValue] = Field(description="as passed; defaults are not included")
    state: State
    result: JsonValue = None
    error: str | None = Field(description="type and message of the last exception")
    traceback: str | None
    progress: Progress | None
    attempts: int = Field(description="number of starts")
    worker: str | None = Field(description="Celery node name of the last attempt")
    accepted_at: datetime
    started_at: datetime | None = Field(description="start of the last attempt")
    next_try_at: datetime | None
    ended_at: datetime | None


class Page(BaseModel):
    """Runs, newest first. `next_cursor` selects the next page; it is null on the last."""

    tasks: list[TaskRun]
    next_cursor: str | None


class Cursor(BaseModel):
    """Position of a row in the order of the history."""

    accepted_at: AwareDatetime
    id: str

    def encode(self) -> str:
        """Return the cursor as URL-safe text."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the cursor that `encode` has written; any other text is answered with 422."""
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError as error:
            message = "cursor: not a next_cursor of an earlier response"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, message) from error


Limit = Annotated[int, Query(ge=1, le=500, description="runs per page")]
CursorText = Annotated[str | None, Query(description="`next_cursor` of the previous page")]


@router.get("/")
async def list_active(limit: Limit = 100, cursor: CursorText = None) -> Page:
    """List pending, started and retrying runs."""
    return await _page(limit, cursor, states=UNFINISHED)


@router.get("/history")
async def list_history(
    *,
    state: Annotated[list[State] | None, Query(description="one or several states")] = None,
    name: Annotated[str | None, Query(description="name of the task")] = None,
    worker: Annotated[str | None, Query(description="Celery node name of the worker")] = None,
    since: Annotated[AwareDatetime | None, Query(description="accepted then or later: 2026-01-31T12:00:00Z")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page:
    """List all runs, newest first."""
    return await _page(limit, cursor, states=state or (), name=name, worker=worker, since=since)


@router.get("/{task_id}", responses=responses(HTTPStatus.NOT_FOUND))
async def get_task(task_id: str) -> TaskRun:
    """Get a run."""
    rows = await execute(history.find(task_id))
    if not rows:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"task not found: {task_id}")
    return TaskRun.model_validate(rows[0])


@router.delete("/{task_id}", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def revoke_task(task_id: str, relay: CurrentRelay) -> TaskRun:
    """Revoke a run: a pending one never starts, a running one is terminated."""
    revoked = await execute(history.revoke(task_id))
    if not revoked:
        ended = await get_task(task_id)
        raise HTTPException(HTTPStatus.CONFLICT, f"task {task_id} has already ended: {ended.state}")
    relay.wake()
    return TaskRun.model_validate(revoked[0])


async def execute(statement: Executable, parameters: Sequence[Mapping[str, Any]] | None = None) -> list[Row[Any]]:
    """Execute a statement in its own transaction and return its rows; a timeout raises SQLAlchemy's `TimeoutError`."""
    try:
        async with asyncio.timeout(TIMEOUT), async_engine().begin() as connection:
            result = await connection.execute(statement, parameters)
            return list(result) if result.returns_rows else []
    except TimeoutError as error:
        message = f"no answer within {TIMEOUT:g} s"
        raise PoolTimeoutError(message) from error


async def _page(limit: int, cursor: str | None, **filters: Any) -> Page:
    place = Cursor.decode(cursor) if cursor is not None else None
    before = (place.accepted_at, place.id) if place else None
    rows = await execute(history.page(**filters, before=before, limit=limit + 1))
    runs = [TaskRun.model_validate(row) for row in rows[:limit]]
    last = Cursor(accepted_at=runs[-1].accepted_at, id=runs[-1].task_id).encode() if len(rows) > limit else None
    return Page(tasks=runs, next_cursor=last)
