"""List, get and revoke runs."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, HTTPException, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator
from sqlalchemy import Executable, Row
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.api.problems import COMMON, responses
from app.core.api.transaction import CurrentRelay
from app.core.database import async_engine
from app.core.tasks import history
from app.core.tasks.arguments import to_json
from app.core.tasks.history import KEPT_ATTEMPTS, UNFINISHED, State, runs

router = APIRouter(prefix="/tasks", tags=["tasks"], responses=COMMON)

FEW = 1000  # matches of an argument; for more, reading the history in its order is faster than sorting them
TIMEOUT = 10.0  # seconds that the database has to answer


class Progress(BaseModel):
    """Progress of the current attempt, in the task's own unit."""

    done: float
    total: float


class EarlierAttempt(BaseModel):
    """An attempt that another one has followed."""

    number: int = Field(description="counted from 1")
    worker: str | None
    started_at: datetime
    ended_at: datetime | None = Field(description="null: the worker was lost or stopped")
    error: str | None = Field(description="type and message of the exception")
    traceback: str | None


class TaskRun(BaseModel):
    """One run of a task."""

    model_config = ConfigDict(from_attributes=True, hide_input_in_errors=True)

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
    earlier_attempts: list[EarlierAttempt] = Field([], description=f"the newest {KEPT_ATTEMPTS}, the oldest first")
    worker: str | None = Field(description="Celery node name of the last attempt")
    request_id: str | None = Field(description="id of the request that enqueued it, directly or through other runs")
    api_key: str | None = Field(description="name of the API key of the request")
    accepted_at: datetime
    started_at: datetime | None = Field(description="start of the last attempt")
    next_try_at: datetime | None
    ended_at: datetime | None

    @field_validator("earlier_attempts", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return value or []


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


Limit = Annotated[int, Field(ge=1, le=500, description="runs per page")]


class Paging(BaseModel, extra="forbid"):
    """Query parameters that select a page."""

    limit: Limit = 100
    cursor: str | None = Field(None, description="`next_cursor` of the previous page")


class Filters(BaseModel, extra="forbid"):
    """Query parameters that select runs. A misspelt one is an error: ignored, it would select more runs."""

    name: str | None = Field(None, description="name of the task")
    worker: str | None = Field(None, description="Celery node name of the worker")
    since: AwareDatetime | None = Field(None, description="accepted then or later: 2026-01-31T12:00:00Z")
    until: AwareDatetime | None = Field(None, description="accepted before")
    argument: list[str] = Field([], description="value of an argument, as in order_id=42; one or several")

    def values(self) -> dict[str, Any]:
        """Return arguments of `history.matching`."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("name", "worker", "since", "until")}
        return values | {"arguments": [_alternatives(each) for each in self.argument]}


def _alternatives(argument: str) -> list[tuple[str, Any]]:
    """Return the arguments that match `name=value`: the text, and the number or other value that it denotes."""
    name, equals, text = argument.partition("=")
    if not (name and equals):
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f'argument: "{argument}" is invalid (use name=value)')
    alternatives: list[tuple[str, Any]] = [(name, text)]
    with contextlib.suppress(ValueError, RecursionError):
        alternatives.append((name, to_json(json.loads(text))))
    return alternatives


class HistoryQuery(Filters, Paging):
    """Query parameters of the history."""

    limit: Limit = 50
    state: list[State] = Field([], description="one or several states")


@router.get("/")
async def list_active(query: Annotated[Paging, Query()]) -> Page:
    """List pending, started and retrying runs."""
    return await _page(query, states=UNFINISHED)


@router.get("/history")
async def list_history(query: Annotated[HistoryQuery, Query()]) -> Page:
    """List all runs, newest first."""
    return await _page(query, states=query.state or None, **query.values())


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
    revoked = await execute(history.revoke(runs.c.id == task_id).returning(*runs.c))
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


async def _page(paging: Paging, **filters: Any) -> Page:
    place = Cursor.decode(paging.cursor) if paging.cursor is not None else None
    if filters.get("arguments"):
        few = await execute(history.with_arguments(filters["arguments"], FEW + 1))
        filters["ids"] = [row.id for row in few] if len(few) <= FEW else None
    before = (place.accepted_at, place.id) if place else None
    rows = await execute(history.page(**filters, before=before, limit=paging.limit + 1))
    found = [TaskRun.model_validate(row) for row in rows[: paging.limit]]
    is_last = len(rows) == len(found)
    last = None if is_last else Cursor(accepted_at=found[-1].accepted_at, id=found[-1].task_id).encode()
    return Page(tasks=found, next_cursor=last)
