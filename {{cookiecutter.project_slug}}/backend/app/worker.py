"""What a worker does besides Celery's own: it gives a sign of life, and makes the most of quorum queues."""

from pathlib import Path
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.worker import WorkController
from celery.worker.consumer import Consumer

logger = structlog.get_logger(__name__)

FILE = Path("/tmp/worker.alive")  # noqa: S108 (a tmpfs of the container's own)
INTERVAL = 5.0  # seconds


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file as long as the worker's event loop turns, once the worker consumes.

    A health check then costs a look at the age of a file.
    """

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: WorkController, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        FILE.unlink(missing_ok=True)

    def start(self, worker: WorkController) -> None:
        """Begin to touch."""
        timer: Any = worker.timer
        timer.call_repeatedly(INTERVAL, self.touch)

    def touch(self) -> None:
        """Say that the event loop turns, if the worker has begun to consume."""
        if FILE.exists():
            FILE.touch()

    def stop(self, worker: WorkController) -> None:  # noqa: ARG002 (the bootstep's interface)
        """Leave no sign of life behind."""
        FILE.unlink(missing_ok=True)


class QuorumConsumer(Consumer):
    """Celery's consumer, with what its own does not do on quorum queues."""

    qos: Any
    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]

    def _update_prefetch_count(self, index: int = 0) -> None:
        """Consume anew when the pool has grown or shrunk.

        On quorum queues a prefetch count is that of a consumer, for good: more processes would get no more to do.
        """
        celerys_own: Any = super()
        celerys_own._update_prefetch_count(index)
        self.qos.update()
        self.task_consumer.cancel()
        self.task_consumer.consume()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject a message that nobody can decode, so that it becomes a dead letter; Celery's own drops it."""
        if message.channel is not self.task_consumer.channel:  # a control message: those need no answer
            super().on_decode_error(message, exc)
            return
        logger.error("a message cannot be decoded and goes to the dead letters", error=str(exc))
        message.reject_log_error(logger, self.connection_errors)


@signals.worker_ready.connect
def on_worker_ready(**_: Any) -> None:
    """The first touch says that the worker has begun to consume."""
    FILE.touch()
