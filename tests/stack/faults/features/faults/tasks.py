"""Tasks that write a countable effect, kill their process, exhaust memory, exceed a time limit or report progress."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
import urllib.request
from http.client import HTTPException

from app.core import database
from app.core.tasks import AsyncRunContext, RunContext, task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

SINK = "http://effects:8070/effects"
TIMEOUT = 2.0  # seconds
UNREACHABLE = (OSError, HTTPException)

INSERT = text("INSERT INTO session_effects (run_id) VALUES (:id)")


def note(run: RunContext, step: str) -> list[str]:
    """Write a step of this attempt to the sink; return the steps of all attempts at the run, in order.

    A repeated request stores the step once. A request that arrives after its timeout is rejected.
    """
    record = {"run_id": run.id, "step": step, "attempt": run.attempt, "owner": f"{os.getpid()}@{socket.gethostname()}"}
    for tries_left in (2, 1, 0):
        body = json.dumps({**record, "expires": time.time() + TIMEOUT}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(SINK, body), timeout=TIMEOUT) as response:
                return [each["step"] for each in json.load(response)]
        except UNREACHABLE:
            if not tries_left:
                raise
            time.sleep(0.2)
    raise AssertionError


@task(autoretry_for=UNREACHABLE, max_retries=20, retry_backoff_max=4, time_limit=330)
def effect(run: RunContext, seconds: float = 0.05) -> None:
    """Sleep for `seconds`, then write the effect, unless an earlier attempt has written it.

    The effect therefore exists once for any number of attempts, unless two of them run at the same time. An attempt
    without an effect writes another step, so that the sink has the end of each attempt.
    """
    done = "done" in note(run, "begun")
    time.sleep(seconds)
    note(run, "over" if done else "done")


@task()
def poison(run: RunContext) -> None:  # noqa: ARG001
    """Kill the process that executes the task."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(time_limit=3)
def endless(run: RunContext) -> None:  # noqa: ARG001
    """Ignore the soft time limit, and exceed the hard one."""
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


@task(max_retries=20, retry_backoff_max=4, time_limit=60)
def record(run: RunContext, seconds: float = 0.05) -> None:
    """Insert a row in the session of the run without a guard, then sleep."""
    run.session.execute(INSERT, {"id": run.id})
    time.sleep(seconds)


@task(max_retries=20, retry_backoff_max=4, time_limit=60)
async def record_async(run: AsyncRunContext, seconds: float = 0.05) -> None:
    """Insert a row in the session of the run on the event loop, then sleep."""
    await run.session.execute(INSERT, {"id": run.id})
    await asyncio.sleep(seconds)


@task()
def record_outside(run: RunContext, seconds: float = 0.05) -> None:
    """Insert a row outside the session of the run without a guard, then sleep."""
    with database.autocommit_engine().connect() as connection:
        connection.execute(INSERT, {"id": run.id})
    time.sleep(seconds)


@task(time_limit=6)
def limited(run: RunContext, seconds: float = 3) -> None:
    """Insert a row in the session of the run, under a short time limit."""
    run.session.execute(INSERT, {"id": run.id})
    time.sleep(seconds)
