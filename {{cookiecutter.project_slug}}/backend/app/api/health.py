"""Whether this process lives, and whether what it needs answers."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel
from sqlalchemy import text

from app.api.dependencies import current_relay
from app.database import async_engine
from app.relay import Relay

router = APIRouter(prefix="/health", tags=["health"])

TIMEOUT = 2.0  # seconds


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """What each dependency answered: `ok`, or what is wrong with it."""

    status: Literal["ok", "unavailable"]
    database: str
    broker: str


@router.get("/live")
async def live() -> Live:
    """Say that the process lives, whatever else does not."""
    return Live()


@router.get("/ready", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Ready}})
async def ready(response: Response, relay: Annotated[Relay, Depends(current_relay)]) -> Ready:
    """Ask database and broker. Without the broker the API still accepts tasks; they wait in the database."""
    database, broker = await asyncio.gather(_ask(_select_one()), _ask(relay.ping()))
    if database == broker == "ok":
        return Ready(status="ok", database=database, broker=broker)
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Ready(status="unavailable", database=database, broker=broker)


async def _ask(question: Coroutine[Any, Any, None]) -> str:
    asked = asyncio.create_task(question)
    await asyncio.wait({asked}, timeout=TIMEOUT)
    if not asked.done():
        asked.cancel()  # and not waited for: to cancel a question to a database takes an answer, too
        return f"no answer within {TIMEOUT:g} s"
    error = asked.exception()
    return type(error).__name__ if error else "ok"


async def _select_one() -> None:
    async with async_engine().connect() as connection:
        await connection.execute(text("SELECT 1"))
