"""List, pause and resume queues."""

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.api.problems import COMMON, responses
from app.core.api.runs import execute
from app.core.api.transaction import CurrentRelay
from app.core.tasks import queues
from app.core.tasks.history import UNFINISHED, State, paused_queues, release, runs
from app.core.tasks.relay import RELEASE_BATCH

router = APIRouter(prefix="/queues", tags=["queues"], responses=COMMON)


class QueueState(BaseModel):
    """A queue and its unfinished runs."""

    name: str
    waiting: int = Field(description="runs that are PENDING or RETRY")
    running: int
    paused_at: datetime | None


@router.get("")
async def list_queues() -> list[QueueState]:
    """List all queues by name."""
    paused = {row.name: row.paused_at for row in await execute(select(paused_queues))}
    count = select(runs.c.queue, runs.c.state, func.count().label("runs")).where(runs.c.state.in_(UNFINISHED))
    counts = {(row.queue, row.state): row.runs for row in await execute(count.group_by(runs.c.queue, runs.c.state))}
    return [
        QueueState(
            name=name,
            waiting=sum(counts.get((name, state), 0) for state in (State.PENDING, State.RETRY)),
            running=counts.get((name, State.STARTED), 0),
            paused_at=paused.get(name),
        )
        for name in sorted(queues.names())
    ]


@router.post("/{name}/pause", responses=responses(HTTPStatus.NOT_FOUND))
async def pause_queue(name: str) -> QueueState:
    """Pause a queue: no run of it starts until it is resumed; running ones end as usual."""
    _check(name)
    await execute(insert(paused_queues).values(name=name).on_conflict_do_nothing())
    return await _state(name)


@router.post("/{name}/resume", responses=responses(HTTPStatus.NOT_FOUND))
async def resume_queue(name: str, relay: CurrentRelay) -> QueueState:
    """Resume a queue: its runs start in the order in which they were accepted."""
    _check(name)
    await execute(delete(paused_queues).where(paused_queues.c.name == name))
    await execute(release(RELEASE_BATCH))  # relays release the others
    relay.wake()
    return await _state(name)


def _check(name: str) -> None:
    if name not in queues.names():
        raise HTTPException(HTTPStatus.NOT_FOUND, f"queue not found: {name}")


async def _state(name: str) -> QueueState:
    return next(each for each in await list_queues() if each.name == name)
