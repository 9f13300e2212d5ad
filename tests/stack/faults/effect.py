"""The tasks of the fault suite, put into the rendered project: one leaves an effect, and counts how often it ran."""

import contextlib
import os
import signal
import time

from app import database
from app.tasks.base import Run, task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

RAW_RUN = text(
    "INSERT INTO effects (run_id, raw_runs) VALUES (:id, 1)"
    " ON CONFLICT (run_id) DO UPDATE SET raw_runs = effects.raw_runs + 1"
)
EFFECT = text("UPDATE effects SET done = done + 1 WHERE run_id = :id AND done = 0")


@task(autoretry_for=(OperationalError,), max_retries=20, retry_backoff_max=4)
def effect(run: Run, seconds: float = 0.05) -> None:
    """Work for `seconds`, then leave the effect, once however often it is tried."""
    for statement, pause in ((RAW_RUN, seconds), (EFFECT, 0)):
        with database.engine().connect() as connection:
            connection.execute(statement, {"id": run.id})
        time.sleep(pause)


@task()
def poison(run: Run) -> None:  # noqa: ARG001
    """Kill the process that does this."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(time_limit=3)
def endless(run: Run) -> None:  # noqa: ARG001
    """Outlive the soft time limit, and the hard one."""
    while True:
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(60)


@task()
def stepwise(run: Run, steps: int = 50) -> int:
    """Report progress five times a second."""
    for step in range(steps):
        run.progress(step, steps)
        time.sleep(0.2)
    return steps
