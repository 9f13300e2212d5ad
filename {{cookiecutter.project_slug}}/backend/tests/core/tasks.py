"""Tasks of the core tests, on their own queue; `celery --app=tests.core.tasks worker` executes them."""

import asyncio
import os
import time
from datetime import date
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core import database
from app.core.celery import celery_app
from app.core.tasks import AsyncRunContext, RetryIn, RunContext, history, queues, task, worker
from app.features import queues as feature_queues

__all__ = ["celery_app", "worker"]

QUEUE = "core-tests"

feature_queues.QUEUES = [*feature_queues.QUEUES, QUEUE]
queues.define(feature_queues.QUEUES)


class Item(BaseModel):
    """An argument and a result with types that JSON does not have."""

    day: date
    price: Decimal
    key: UUID
    tags: list[str] = []


@task(queue=QUEUE)
def core_add(run: RunContext, x: float, y: float) -> float:
    """Add two numbers."""
    return x + y


@task(queue=QUEUE)
def core_price(run: RunContext, item: Item, factor: Decimal, days: dict[date, int] | None = None) -> Item:
    """Check the types of all arguments, and return the item with another price."""
    assert isinstance(item.day, date)
    assert isinstance(factor, Decimal)
    assert all(isinstance(day, date) for day in days or {})
    return item.model_copy(update={"price": item.price * factor})


@task(queue=QUEUE, endpoint=False)
def core_hidden(run: RunContext) -> None:
    """Return nothing; the task has no endpoint."""


@task(queue=QUEUE)
def core_slow(run: RunContext, duration: float = 20) -> float:
    """Sleep, and report progress."""
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < duration:
        run.progress(elapsed, duration)
        time.sleep(0.2)
    return duration


@task(queue=QUEUE)
def core_sleep(run: RunContext) -> None:
    """Sleep, without noticing that the run was revoked."""
    time.sleep(60)


@task(queue=QUEUE)
def core_fail(run: RunContext, reason: str = "on purpose") -> None:
    """Fail."""
    raise ValueError(reason)


@task(queue=QUEUE, max_retries=2)
def core_flaky(run: RunContext, failures: int) -> int:
    """Fail in the first attempts."""
    if run.retries < failures:
        message = f"attempt {run.attempt}"
        raise ConnectionError(message)
    return run.attempt


@task(queue=QUEUE)
def core_once(run: RunContext, failures: int = 1) -> int:
    """Fail in the first attempts, without retries."""
    if run.attempt <= failures:
        message = f"attempt {run.attempt}"
        raise ValueError(message)
    return run.attempt


@task(queue=QUEUE)
def core_enqueue_later(run: RunContext, seconds: float) -> None:
    """Enqueue another task with options."""
    run.session.execute(core_add.options(delay=seconds, queue="celery", priority=9).enqueue(x=1, y=1))


@task(queue=QUEUE, max_retries=1)
def core_later(run: RunContext, seconds: float) -> int:
    """Request another attempt, each time."""
    raise RetryIn(seconds, "not yet")


@task(queue=QUEUE, max_retries=1)
def core_enqueue(run: RunContext, x: float, *, fail: bool = False) -> str:
    """Enqueue another task in the transaction of this run. With `fail`, the first attempt fails afterwards."""
    (run_id,) = run.session.execute(core_add.enqueue(x=x, y=run.attempt)).one()
    if fail and run.attempt == 1:
        raise ConnectionError
    return str(run_id)


@task(queue=QUEUE)
def core_revoked(run: RunContext, x: float) -> None:
    """Enqueue another task, and revoke this run."""
    run.session.execute(core_add.enqueue(x=x, y=0))
    with Session(database.engine()) as other, other.begin():
        other.execute(history.revoke(history.runs.c.id == run.id))


@task(queue=QUEUE)
async def core_async_revoked(run: AsyncRunContext, x: float) -> None:
    """Enqueue another task asynchronously, and revoke this run."""
    await run.session.execute(core_add.enqueue(x=x, y=0))
    async with AsyncSession(database.async_engine()) as other, other.begin():
        await other.execute(history.revoke(history.runs.c.id == run.id))


@task(queue=QUEUE)
def core_commit(run: RunContext) -> None:
    """Commit the session, which is an error."""
    run.session.execute(core_add.enqueue(x=0, y=0))
    with run.session.begin_nested():
        run.session.execute(core_add.enqueue(x=1, y=0))
    run.session.commit()


@task(queue=QUEUE)
def core_recursive(run: RunContext, n: int) -> int:
    """Call itself directly."""
    return n * core_recursive(n - 1) if n > 1 else 1


@task(queue=QUEUE)
async def core_async(run: AsyncRunContext, x: float) -> list[str]:
    """Enqueue another task asynchronously; return its id, and the number of this run on its event loop."""
    await run.progress(1, 2)
    (run_id,) = (await run.session.execute(core_add.enqueue(x=x, y=0))).one()
    loop = asyncio.get_running_loop()
    loop.core_runs = getattr(loop, "core_runs", 0) + 1  # type: ignore[attr-defined]
    return [str(run_id), f"{os.getpid()}:{loop.core_runs}"]  # type: ignore[attr-defined]


@task(queue=QUEUE, soft_time_limit=1, time_limit=8)
async def core_async_slow(run: AsyncRunContext) -> None:
    """Exceed the soft time limit."""
    await asyncio.sleep(20)
