"""`?wait=`: one poll per process serves all requests that wait for the end of a run."""

import asyncio
import contextlib
import time
from typing import Any

from fastapi import Request
from sqlalchemy import String, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError

from app.core.api.runs import TaskRun, execute
from app.core.tasks.history import runs

TICK = 0.02  # seconds

_waiters: dict[asyncio.Future[Any], tuple[str, float]] = {}  # the run and the time of each request
_poller: asyncio.Task[None] | None = None


async def wait_for_end(request: Request, run_id: str, seconds: float) -> TaskRun | None:
    """Return the run if it ends within `seconds`, and before the client disconnects or the server stops."""
    global _poller  # noqa: PLW0603 (one per process)
    end: asyncio.Future[Any] = asyncio.Future()
    _waiters[end] = (run_id, time.monotonic())
    if _poller is None or _poller.done():
        _poller = asyncio.create_task(_poll())
    disconnect = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({end, disconnect}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # by the server, which stops: the run is stored, and the client gets its id
        return None
    finally:
        disconnect.cancel()
        del _waiters[end]
    return TaskRun.model_validate(end.result()) if end.done() else None


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # a body that the endpoint does not read


async def _poll() -> None:
    """Poll for recent requests' runs at each tick, and for those of older ones at each 2nd, 4th, 8th ... tick.

    Pauses grow from 0.02 s to 0.64 s after 20 s. While the database is unavailable, the requests go on waiting.
    """
    tick = int(time.monotonic() / TICK)
    while _waiters:
        await asyncio.sleep(TICK)
        now = time.monotonic()
        last, tick = tick, int(now / TICK)
        oldest = now - TICK * 4 ** (last ^ tick).bit_length()
        due = {end: run_id for end, (run_id, since) in _waiters.items() if since >= oldest}
        is_due = runs.c.id == any_(literal(list(set(due.values())), ARRAY(String)))
        with contextlib.suppress(SQLAlchemyError):
            rows = await execute(select(runs).where(is_due, runs.c.ended_at.is_not(None))) if due else []
            ended = {row.id: row for row in rows}
            for end, run_id in due.items():
                if run_id in ended and not end.done():
                    end.set_result(ended[run_id])
