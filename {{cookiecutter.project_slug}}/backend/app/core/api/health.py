"""Liveness and readiness probes."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.core.api.transaction import CurrentRelay
from app.core.database import async_engine
from app.core.tasks import queues, schedules

router = APIRouter(prefix="/health", tags=["health"])

TIMEOUT = 2.0  # seconds


class Live(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The state of each dependency: `ok`, or the problem."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="degraded: a queue has no consumer, or a schedule is overdue"
    )
    database: str
    broker: str
    queues: dict[str, str] = Field(description="by name: `ok`, or `no consumer` if no worker consumes it")
    schedules: str = Field(description="`ok`, or the schedule whose tick is the longest overdue, by more than a minute")


@router.get("/live")
async def get_live() -> Live:
    """Report that the process responds, regardless of its dependencies."""
    return Live()


@router.get("/ready", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Ready}})
async def get_ready(response: Response, relay: CurrentRelay) -> Ready:
    """Check the dependencies: 503 if the database or the broker is unavailable.

    Tasks are accepted without the broker and without workers; they wait in the database or in their queue.
    """
    (database, late), (broker, consumers) = await asyncio.gather(_check(_overdue()), _check(relay.consumers()))
    consumed = {
        name: ("ok" if consumers.get(name) else "no consumer") if consumers is not None else "unknown"
        for name in queues.names()
    }
    late = late or "unknown"
    state: dict[str, Any] = {"database": database, "broker": broker, "queues": consumed, "schedules": late}
    if not database == broker == "ok":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Ready(status="unavailable", **state)
    complete = all(each == "ok" for each in (late, *consumed.values()))
    return Ready(status="ok" if complete else "degraded", **state)


async def _check[T](probe: Coroutine[Any, Any, T]) -> tuple[str, T | None]:
    """Return the state of a dependency, and the result of its probe."""
    task = asyncio.create_task(probe)
    await asyncio.wait({task}, timeout=TIMEOUT)
    if not task.done():
        task.cancel()  # not awaited: cancelling a query takes an answer of the database
        return f"no answer within {TIMEOUT:g} s", None
    error = task.exception()
    return (type(error).__name__, None) if error else ("ok", task.result())


async def _overdue() -> str:
    """Return the name and the lateness of the schedule that is the longest overdue, or `ok`."""
    async with async_engine().connect() as connection:
        row = (await connection.execute(schedules.overdue())).first()
    return f"overdue: {row.name}, {row.late.total_seconds():.0f} s" if row else "ok"
