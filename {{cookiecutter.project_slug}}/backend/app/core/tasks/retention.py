"""Retention: ended runs are deleted after `HISTORY_DAYS`, failed ones after `HISTORY_FAILURE_DAYS`.

Any API process deletes them, in small batches that skip each other's rows.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.core.database import async_engine
from app.core.settings import settings
from app.core.tasks import history
from app.core.tasks.background import background
from app.core.tasks.history import State

logger = structlog.get_logger(__name__)

BATCH = 1000  # rows
PAUSE = 0.5  # seconds between full batches, so that other transactions get their turn
IDLE = 60.0  # seconds until old rows are looked for again


def running() -> AbstractAsyncContextManager[None]:
    """Delete old runs in the background of a block."""
    return background(_run(), "retention")


async def _run() -> None:
    while True:
        more = False
        try:
            more = await prune()
        except SQLAlchemyError as error:
            logger.warning("old runs not deleted", error=str(error))
        await asyncio.sleep(PAUSE if more else IDLE)


async def prune() -> bool:
    """Delete a batch of old runs of each final state; return whether more are left."""
    days = {state: settings().history_days for state in (State.SUCCESS, State.REVOKED)}
    days[State.FAILURE] = settings().history_failure_days
    more = False
    for state, kept in days.items():
        if kept:
            async with async_engine().begin() as connection:
                deleted = await connection.execute(history.delete_old(state, timedelta(days=kept), BATCH))
            more |= deleted.rowcount == BATCH
    return more
