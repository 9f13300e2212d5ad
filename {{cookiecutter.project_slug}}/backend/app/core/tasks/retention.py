"""Retention: ended runs are deleted after `HISTORY_DAYS`, failed ones after `HISTORY_FAILURE_DAYS`.

Any API process deletes them, in small batches that skip each other's rows. With the database as Celery's result
backend, results are deleted when they expire: Celery itself would need a beat process for that.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import structlog
from celery.backends.database.models import Task, TaskSet
from sqlalchemy import Delete, Table, delete, func, select

from app.core.celery import celery_app
from app.core.database import async_engine
from app.core.settings import settings
from app.core.tasks import history
from app.core.tasks.background import background
from app.core.tasks.history import State

logger = structlog.get_logger(__name__)

BATCH = 1000  # rows
PAUSE = 0.5  # seconds between full batches, so that other transactions get their turn
IDLE = 60.0  # seconds until old rows are looked for again

RESULTS: list[Table] = [Task.__table__, TaskSet.__table__]
"""Tables of Celery, which creates them with its first result; only with the database as its result backend."""


def running() -> AbstractAsyncContextManager[None]:
    """Delete old runs in the background of a block."""
    return background(_run(), "retention")


async def _run() -> None:
    while True:
        more = False
        try:
            more = await prune()
        except Exception as error:  # noqa: BLE001 (the next attempt may succeed)
            logger.warning("old runs not deleted", error=repr(error))
        await asyncio.sleep(PAUSE if more else IDLE)


async def prune() -> bool:
    """Delete a batch of old runs of each final state, and of old results; return whether more are left."""
    days = {state: settings().history_days for state in (State.SUCCESS, State.REVOKED)}
    days[State.FAILURE] = settings().history_failure_days
    statements = [history.delete_old(state, timedelta(days=kept), BATCH) for state, kept in days.items() if kept]
    async with async_engine().begin() as connection:
        existing = [each for each in RESULTS if await connection.scalar(select(func.to_regclass(each.name)))]
    more = False
    for statement in [*statements, *map(_delete_expired, existing)]:
        async with async_engine().begin() as connection:
            more |= (await connection.execute(statement)).rowcount == BATCH
    return more


def _delete_expired(results: Table) -> Delete:
    until = func.timezone("UTC", func.now() - timedelta(seconds=celery_app.conf.result_expires))
    old = select(results.c.id).where(results.c.date_done < until).order_by(results.c.date_done).limit(BATCH)
    return delete(results).where(results.c.id.in_(old.with_for_update(skip_locked=True)))
