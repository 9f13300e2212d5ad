"""A task to practise on: what retries look like in the API and in Flower."""

from typing import Annotated

from pydantic import Field

from app.tasks.base import Run, task


@task()
def flaky(run: Run, failures: Annotated[int, Field(ge=0, le=10)] = 2) -> str:
    """Fail in the first attempts, as a task does whose network is away, and succeed in the next."""
    if run.retries < failures:
        message = f"attempt {run.attempt}: nobody answers"
        raise ConnectionError(message)
    return f"succeeded after {run.retries} retries"
