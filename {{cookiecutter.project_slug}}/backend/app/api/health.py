"""Whether this process lives, and whether what it needs answers."""

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Annotated, Literal

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


async def _ask(question: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT):
            await question
    except TimeoutError:
        return f"no answer within {TIMEOUT:g} s"
    except Exception as error:  # noqa: BLE001 (whatever is wrong is the answer)
        return type(error).__name__
    return "ok"


async def _select_one() -> None:
    async with async_engine().connect() as connection:
        await connection.execute(text("SELECT 1"))
