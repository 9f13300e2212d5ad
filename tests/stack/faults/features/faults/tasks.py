"""Tasks that leave a countable effect, kill their process, exhaust memory, exceed a time limit or report progress."""

import contextlib
import os
import signal
import time

from app.core import database
from app.core.tasks import RunContext, task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

LOOK = text("SELECT count(*) FROM effects WHERE run_id = :id AND step = 'done'")
NOTE = text("INSERT INTO effects (run_id, step) VALUES (:id, :step)")


@task(autoretry_for=(OperationalError,), max_retries=20, retry_backoff_max=4)
def effect(run: RunContext, seconds: float = 0.05) -> None:
    """Work for `seconds`, then leave the effect, unless an earlier attempt has left it.

    The effect therefore exists once for any number of attempts, unless two of them run at the same time.
    """
    with database.autocommit_engine().connect() as connection:
        done = connection.execute(LOOK, {"id": run.id}).scalar_one()
        connection.execute(NOTE, {"id": run.id, "step": "begun"})
    time.sleep(seconds)
    if not done:
        with database.autocommit_engine().connect() as connection:
            connection.execute(NOTE, {"id": run.id, "step": "done"})


@task()
def poison(run: RunContext) -> None:  # noqa: ARG001
    """Kill the process that does this."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(time_limit=3)
def endless(run: RunContext) -> None:  # noqa: ARG001
    """Outlive the soft time limit, and the hard one."""
    while True:
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(60)


@task()
def stepwise(run: RunContext, steps: int = 50) -> int:
    """Report progress five times a second."""
    for step in range(steps):
        run.progress(step, steps)
        time.sleep(0.2)
    return steps


@task()
def exhausting(run: RunContext) -> None:  # noqa: ARG001
    """Raise a `MemoryError`."""
    raise MemoryError


@task()
def record(run: RunContext, seconds: float = 0.05) -> None:
    """Leave the effect, unguarded, in the session of the run, and take a while until its end."""
    run.session.execute(NOTE, {"id": run.id, "step": "done"})
    time.sleep(seconds)


@task()
def record_outside(run: RunContext, seconds: float = 0.05) -> None:
    """Leave the effect, unguarded, outside the session of the run, and take a while until its end."""
    with database.autocommit_engine().connect() as connection:
        connection.execute(NOTE, {"id": run.id, "step": "done"})
    time.sleep(seconds)


@task(time_limit=4)
def limited(run: RunContext, seconds: float = 3) -> None:
    """Leave the effect in the session of the run, under a short time limit."""
    run.session.execute(NOTE, {"id": run.id, "step": "done"})
    time.sleep(seconds)
