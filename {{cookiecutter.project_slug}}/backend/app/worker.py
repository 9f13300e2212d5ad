"""What a worker does besides Celery's own: it gives a sign of life, and keeps messages that nobody can read."""

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


class DeadLetterConsumer(Consumer):
    """Leaves messages that nobody can decode to the broker's dead letters; Celery's own drops them."""

    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject the message, so that the broker's policy moves it."""
        if message.channel is not self.task_consumer.channel:  # a control message: those need no answer
            super().on_decode_error(message, exc)
            return
        logger.error("a message cannot be decoded and goes to the dead letters", error=str(exc))
        message.reject_log_error(logger, self.connection_errors)


@signals.worker_ready.connect
def on_worker_ready(**_: Any) -> None:
    """The first touch says that the worker has begun to consume."""
    FILE.touch()
