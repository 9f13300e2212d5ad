"""Accept tasks, tell of them, revoke them."""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import uuid4

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from pydantic import AwareDatetime, BaseModel, Field, JsonValue, create_model
from sqlalchemy import Executable, Row

from app import history
from app.api.dependencies import current_relay
from app.api.problems import UNAVAILABLE, responses
from app.database import async_engine
from app.history import UNFINISHED, State
from app.relay import Relay
from app.tasks import REGISTRY, RecordedTask

router = APIRouter(
    prefix="/tasks",
    tags=["tasks"],
    responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)

LONGEST_WAIT = 60.0  # seconds
TIMEOUT = 10.0  # seconds the database may take to answer


class Accepted(BaseModel):
    """The run is in the history and will be done."""

    task_id: str


class Progress(BaseModel):
    """How far the present attempt has come, in the task's own unit."""

    done: float
    total: float


class TaskRun(BaseModel):
    """One run of a task."""

    task_id: str
    name: str
    arguments: dict[str, JsonValue]
    state: State
    result: JsonValue = None
    error: str | None = Field(description="type and message of the last exception")
    traceback: str | None
    progress: Progress | None
    attempts: int = Field(description="how often it was started")
    worker: str | None = Field(description="Celery's name of the worker that started it last")
    accepted_at: datetime
    started_at: datetime | None = Field(description="of the last attempt")
    next_try_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """The run that a row of the history records."""
        return cls(task_id=row.id, **{field: row._mapping[field] for field in cls.model_fields if field != "task_id"})


class Page(BaseModel):
    """Some runs, newest first. `next_cursor` asks for those before them; it is null on the last page."""

    tasks: list[TaskRun]
    next_cursor: str | None


class Cursor(BaseModel):
    """The place of a row in the order of the history."""

    accepted_at: AwareDatetime
    id: str

    def encode(self) -> str:
        """Text that goes into an address as it is."""
        place = json.dumps([self.accepted_at.isoformat(), self.id])
        return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read back what `encode` wrote.

        Raises:
            HTTPException: 422, it did not.
        """
        try:
            accepted_at, run_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(accepted_at=accepted_at, id=run_id)
        except (binascii.Error, ValueError, TypeError) as error:
            message = "cursor: this is no next_cursor of an earlier answer"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, message) from error


Limit = Annotated[int, Query(ge=1, le=500, description="runs on a page")]
CursorText = Annotated[str | None, Query(description="`next_cursor` of the page before")]


@router.get("/")
async def unfinished(limit: Limit = 100, cursor: CursorText = None) -> Page:
    """List what is pending, started or in retry now."""
    return await _page(limit, cursor, states=UNFINISHED)


@router.get("/history")
async def past(
    *,
    state: Annotated[list[State] | None, Query(description="one state, or several")] = None,
    name: Annotated[str | None, Query(description="the task's name")] = None,
    worker: Annotated[str | None, Query(description="Celery's name of the worker")] = None,
    since: Annotated[AwareDatetime | None, Query(description="accepted then or later: 2026-01-31T12:00:00Z")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page:
    """List every run ever accepted."""
    return await _page(limit, cursor, states=state or (), name=name, worker=worker, since=since)


@router.get("/{task_id}", responses=responses(HTTPStatus.NOT_FOUND))
async def one(task_id: str) -> TaskRun:
    """Tell of one run."""
    run = await _find(task_id)
    if run is None:
        raise _unknown(task_id)
    return run


@router.delete("/{task_id}", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def revoke(task_id: str, relay: Annotated[Relay, Depends(current_relay)]) -> TaskRun:
    """Revoke a run: one that waits never starts, one that is at work is terminated."""
    revoked = await _execute(history.revoke(task_id))
    if revoked:
        relay.wake()
        return TaskRun.of(revoked[0])
    run = await _find(task_id)
    if run is None:
        raise _unknown(task_id)
    raise HTTPException(HTTPStatus.CONFLICT, f"task {task_id} has ended as {run.state}")


def _accepting(task: RecordedTask) -> Callable[..., Coroutine[Any, Any, Accepted | TaskRun]]:
    option = (float, Field(0, ge=0, le=LONGEST_WAIT, description="seconds to wait for the end of the run"))
    query: Any = create_model(f"{task.name}_query", __base__=task.arguments, wait=option)

    async def accept(
        response: Response, relay: Annotated[Relay, Depends(current_relay)], values: Annotated[query, Query()]
    ) -> Accepted | TaskRun:
        run_id = str(uuid4())
        arguments = values.model_dump(mode="json")
        wait = arguments.pop("wait")
        await _execute(history.accept(run_id, task.name, arguments))
        relay.wake()
        run = await _ended(run_id, wait)
        if run is not None:
            return run
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Location"] = f"/tasks/{run_id}"
        return Accepted(task_id=run_id)

    return accept


for _task in REGISTRY.values():
    router.add_api_route(
        f"/{_task.name}",
        _accepting(_task),
        methods=["POST"],
        name=_task.name,
        description=_task.__doc__,
        response_model=TaskRun | Accepted,
        responses={
            HTTPStatus.OK: {"model": TaskRun, "description": "With `wait`, and it ended within that time"},
            HTTPStatus.ACCEPTED: {"model": Accepted, "description": "In the history, and sure to be done"},
        },
    )


def _unknown(task_id: str) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"there is no task {task_id}")


async def _execute(statement: Executable) -> list[Row[Any]]:
    async with asyncio.timeout(TIMEOUT), async_engine().begin() as connection:
        result = await connection.execute(statement)
        return list(result) if result.returns_rows else []


async def _find(run_id: str) -> TaskRun | None:
    rows = await _execute(history.find(run_id))
    return TaskRun.of(rows[0]) if rows else None


async def _page(limit: int, cursor: str | None, **filters: Any) -> Page:
    place = Cursor.decode(cursor) if cursor is not None else None
    before = (place.accepted_at, place.id) if place else None
    rows = await _execute(history.page(**filters, before=before, limit=limit + 1))
    runs = [TaskRun.of(row) for row in rows[:limit]]
    more = len(rows) > limit
    last = Cursor(accepted_at=runs[-1].accepted_at, id=runs[-1].task_id).encode() if more else None
    return Page(tasks=runs, next_cursor=last)


async def _ended(run_id: str, wait: float) -> TaskRun | None:
    """The run, if it ends within `wait` seconds and the database says so; it is accepted in any case."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    pause = 0.02
    while (left := deadline - loop.time()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.5)
        with contextlib.suppress(*UNAVAILABLE):
            run = await _find(run_id)
            if run is not None and run.state not in UNFINISHED:
                return run
    return None
