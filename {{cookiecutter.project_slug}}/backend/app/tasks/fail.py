"""A task to practise on: what a failure looks like in the API and in Flower."""

from app.tasks.base import Run, task


@task()
def fail(run: Run, reason: str = "this task always fails") -> None:
    """Fail with a traceback."""
    raise ValueError(reason)
