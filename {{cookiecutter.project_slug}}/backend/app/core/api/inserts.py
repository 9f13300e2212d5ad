"""Insertion of runs: requests that arrive during a commit share the next one."""

import asyncio
from datetime import timedelta
from itertools import islice
from typing import Any

from app.core.api.runs import execute
from app.core.database import is_unavailable
from app.core.logs import origin
from app.core.tasks import history

BATCH = 100  # runs in one transaction

_waiting: dict[asyncio.Future[None], dict[str, Any]] = {}  # the run of each request, in order
_inserter: asyncio.Task[None] | None = None


async def insert(*, delay: timedelta = timedelta(), **run: Any) -> None:
    """Insert a run, given by the arguments of `history.enqueue`; return when it is committed.

    A commit of a hundred rows takes little longer than that of one. A request waits for a running commit only.
    """
    global _inserter  # noqa: PLW0603 (one per process)
    committed: asyncio.Future[None] = asyncio.Future()
    _waiting[committed] = {**run, "delay": delay, **origin()}
    if _inserter is None or _inserter.done():
        _inserter = asyncio.create_task(_insert_waiting())
    await committed


async def _insert_waiting() -> None:
    while _waiting:
        batch = dict(islice(_waiting.items(), BATCH))
        for committed in batch:
            del _waiting[committed]
        error = await _commit(*batch.values())
        if error and is_unavailable(error):
            batch |= _waiting  # otherwise each batch would wait for a timeout of its own
            _waiting.clear()
        for committed, run in batch.items():
            outcome = error
            if error and not is_unavailable(error) and len(batch) > 1:
                outcome = await _commit(run)  # a value that PostgreSQL rejects fails its own run only
                error = outcome if outcome and is_unavailable(outcome) else error
            if not committed.done():
                committed.set_exception(outcome) if outcome else committed.set_result(None)


async def _commit(*batch: dict[str, Any]) -> Exception | None:
    try:
        await execute(history.INSERT, batch)
    except Exception as error:  # noqa: BLE001 (each request raises it)
        return error
    return None
