"""Tasks that leave a countable effect, kill their process, exhaust memory, exceed a time limit or report progress."""

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
    """Write a step of this attempt to the sink; return the steps of all attempts at the run, in their order.

    A step is stored once however often it is sent, and not after the timeout of its request.
    """
    record = {"run_id": run.id, "step": step, "attempt": run.attempt, "owner": f"{os.getpid()}@{socket.gethostname()}"}
    for tries_left in (2, 1, 0):
        body = json.dumps({**record, "expires": time.time() + TIMEOUT}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(SINK, body), timeout=TIMEOUT) as answer:
                return [each["step"] for each in json.load(answer)]
        except UNREACHABLE:
            if not tries_left:
                raise
            time.sleep(0.2)
    raise AssertionError


@task(autoretry_for=UNREACHABLE, max_retries=20, retry_backoff_max=4, time_limit=330)
def effect(run: RunContext, seconds: float = 0.05) -> None:
    """Work for `seconds`, then leave the effect, unless an earlier attempt has left it.

    The effect therefore exists once for any number of attempts, unless two of them run at the same time. An attempt
    that leaves none writes another step, so that the sink has the end of each attempt.
    """
    done = "done" in note(run, "begun")
    time.sleep(seconds)
    note(run, "over" if done else "done")


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


@task(max_retries=20, retry_backoff_max=4, time_limit=60)
def record(run: RunContext, seconds: float = 0.05) -> None:
    """Leave the effect, unguarded, in the session of the run, and take a while until its end."""
    run.session.execute(INSERT, {"id": run.id})
    time.sleep(seconds)


@task(max_retries=20, retry_backoff_max=4, time_limit=60)
async def record_async(run: AsyncRunContext, seconds: float = 0.05) -> None:
    """Do the same on the event loop."""
    await run.session.execute(INSERT, {"id": run.id})
    await asyncio.sleep(seconds)


@task()
def record_outside(run: RunContext, seconds: float = 0.05) -> None:
    """Leave the effect, unguarded, outside the session of the run, and take a while until its end."""
    with database.autocommit_engine().connect() as connection:
        connection.execute(INSERT, {"id": run.id})
    time.sleep(seconds)


@task(time_limit=4)
def limited(run: RunContext, seconds: float = 3) -> None:
    """Leave the effect in the session of the run, under a short time limit."""
    run.session.execute(INSERT, {"id": run.id})
    time.sleep(seconds)
