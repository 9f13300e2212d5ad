"""A task that takes its time and says how far it is."""

import time
from typing import Annotated

from pydantic import Field

from app.tasks.base import Run, task


@task()
def slow(run: Run, duration: Annotated[float, Field(ge=0, le=500, description="seconds")] = 20) -> float:
    """Sleep for `duration` seconds, reporting progress each second."""
    began = time.monotonic()
    while (done := time.monotonic() - began) < duration:
        run.progress(round(done, 1), duration)
        time.sleep(min(1, duration - done))
    return duration
