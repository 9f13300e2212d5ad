import time

from app.core.tasks import RunContext, task


@task()
def benchmark_noop(run: RunContext) -> float:  # noqa: ARG001 (every task has it)
    """Return the time of the first line, as seconds since the epoch."""
    return time.time()


@task(endpoint=False)
def benchmark_receipt(run: RunContext, order_id: int) -> None:
    """Do nothing for an order."""
