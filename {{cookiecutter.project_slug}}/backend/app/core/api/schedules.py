"""List, pause, resume and run schedules."""

from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, JsonValue
from sqlalchemy import select, update

from app.core.api.enqueue import Accepted
from app.core.api.inserts import insert
from app.core.api.problems import COMMON, responses
from app.core.api.runs import execute
from app.core.api.transaction import CurrentRelay
from app.core.tasks.schedules import SCHEDULES, Schedule, table

router = APIRouter(prefix="/schedules", tags=["schedules"], responses=COMMON)


class ScheduleState(BaseModel):
    """A schedule of this version, and its ticks."""

    name: str
    task: str
    arguments: dict[str, JsonValue]
    when: str = Field(description="interval, or crontab expression and time zone")
    last_tick: datetime | None = Field(description="newest tick with a run")
    next_tick: datetime | None = Field(description="null until a relay has recorded the schedule")
    paused: bool


@router.get("")
async def list_schedules() -> list[ScheduleState]:
    """List all schedules by name."""
    rows = {row.name: row for row in await execute(select(table).where(table.c.name.in_(SCHEDULES)))}
    return [_state(each, rows.get(name)) for name, each in sorted(SCHEDULES.items())]


@router.post("/{name}/pause", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def pause_schedule(name: str) -> ScheduleState:
    """Pause a schedule: its ticks are skipped until it is resumed, and not caught up."""
    return await _set_paused(name, paused=True)


@router.post("/{name}/resume", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def resume_schedule(name: str) -> ScheduleState:
    """Resume a schedule with its next tick."""
    return await _set_paused(name, paused=False)


@router.post("/{name}/run", status_code=202, response_model=Accepted, responses=responses(HTTPStatus.NOT_FOUND))
async def run_schedule(name: str, relay: CurrentRelay) -> JSONResponse:
    """Enqueue a run of a schedule's task now, in addition to its ticks, even if it is paused."""
    each = _find(name)
    run_id = str(uuid4())
    await insert(id=run_id, name=each.task.name, queue=each.task.queue_name, arguments=each.arguments)
    relay.wake()
    return JSONResponse({"task_id": run_id}, HTTPStatus.ACCEPTED, {"Location": f"/tasks/{run_id}"})


def _find(name: str) -> Schedule:
    if name not in SCHEDULES:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"schedule not found: {name}")
    return SCHEDULES[name]


async def _set_paused(name: str, *, paused: bool) -> ScheduleState:
    each = _find(name)
    rows = await execute(update(table).where(table.c.name == name).values(paused=paused).returning(*table.c))
    if not rows:
        raise HTTPException(HTTPStatus.CONFLICT, f"schedule {name} is not recorded yet (try again in a few seconds)")
    return _state(each, rows[0])


def _state(each: Schedule, row: Any) -> ScheduleState:
    return ScheduleState(
        name=each.name,
        task=each.task.name,
        arguments=dict(each.arguments),
        when=str(each.rule),
        last_tick=row and row.last_tick,
        next_tick=row and row.next_tick,
        paused=bool(row and row.paused),
    )
