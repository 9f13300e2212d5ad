"""The shortest task there is."""

from app.tasks.base import Run, task


@task()
def add(run: Run, x: float, y: float) -> float:
    """Add two numbers."""
    return x + y
