"""A task with arguments up to the broker's limit."""

from app.core.tasks import RunContext, task


@task()
def measure(run: RunContext, document: dict[str, str]) -> int:  # noqa: ARG001
    """Return the number of characters in the values of a document."""
    return sum(map(len, document.values()))
