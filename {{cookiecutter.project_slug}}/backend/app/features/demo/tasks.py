"""A short task, a slow one, one that fails and one that succeeds after retries."""

import time
from typing import Annotated

from pydantic import Field

from app.core.tasks import RunContext, task


@task()
def add(run: RunContext, x: float, y: float) -> float:
    """Add two numbers."""
    return x + y


@task()
def slow(run: RunContext, duration: Annotated[float, Field(ge=0, le=500, description="seconds")] = 20) -> float:
    """Sleep for `duration` seconds, reporting progress every second."""
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < duration:
        run.progress(round(elapsed, 1), duration)
        time.sleep(min(1, duration - elapsed))
    return duration


@task()
def fail(run: RunContext, reason: str = "this task always fails") -> None:
    """Fail with a traceback."""
    raise ValueError(reason)


@task()
def flaky(run: RunContext, failures: Annotated[int, Field(ge=0, le=10)] = 2) -> str:
    """Fail in the first attempts, like a task whose network is down, then succeed."""
    if run.retries < failures:
        message = f"attempt {run.attempt}: connection refused"
        raise ConnectionError(message)
    return f"succeeded after {run.retries} retries"
