"""Extensions of Celery's worker: a liveness file, and a consumer that fits quorum queues."""

from pathlib import Path
from typing import Any, override

import structlog
from celery import bootsteps, signals
from celery.worker import WorkController
from celery.worker.consumer import Consumer

from app.core import database
from app.core.celery import celery_app
from app.core.errors import ConfigurationError
from app.core.settings import settings
from app.core.tasks import queues

logger = structlog.get_logger(__name__)

FILE = Path("/tmp/worker.alive")  # noqa: S108 (a tmpfs of the container)
INTERVAL = 5.0  # seconds


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file while the worker's event loop runs, once the worker consumes.

    The health check then only reads the age of a file.
    """

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: WorkController, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        FILE.unlink(missing_ok=True)

    def start(self, worker: WorkController) -> None:
        """Start to touch the file."""
        timer: Any = worker.timer
        timer.call_repeatedly(INTERVAL, self.touch)

    def touch(self) -> None:
        """Touch the file if the worker has started to consume."""
        if FILE.exists():
            FILE.touch()

    def stop(self, worker: WorkController) -> None:  # noqa: ARG002 (the bootstep's interface)
        """Remove the file."""
        FILE.unlink(missing_ok=True)


class QuorumConsumer(Consumer):
    """Celery's consumer, extended for quorum queues."""

    qos: Any
    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]

    @override
    def connect(self) -> Any:
        """Connect and declare every queue: Celery declares only those it consumes, but binds all of them."""
        connection = super().connect()
        queues.declare(connection)
        return connection

    def _update_prefetch_count(self, index: int = 0) -> None:
        """Consume again after the pool has grown or shrunk.

        On a quorum queue the prefetch count belongs to the consumer and never changes: without a new consumer, added
        processes would stay idle.
        """
        celerys_own: Any = super()
        celerys_own._update_prefetch_count(index)
        self.qos.update()
        self.task_consumer.cancel()
        self.task_consumer.consume()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject an undecodable message, so that it becomes a dead letter; Celery acknowledges it."""
        if message.channel is not self.task_consumer.channel:  # a control message, which needs no acknowledgement
            super().on_decode_error(message, exc)
            return
        logger.error("undecodable message rejected, see the dead-letter queue", error=str(exc))
        message.reject_log_error(logger, self.connection_errors)


@signals.celeryd_after_setup.connect
def on_after_setup(instance: WorkController, **_: Any) -> None:
    """Select the queues of this worker, and create the main process' engine.

    Raises:
        SystemExit: `WORKER_QUEUES` names an unknown queue.
    """
    # A thread that creates it later holds import locks; a pool process forked meanwhile would wait for them forever.
    database.engine()
    amqp: Any = instance.app.amqp
    try:
        amqp.queues.select(queues.selected(settings().worker_queues))
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None


@signals.worker_ready.connect
def on_worker_ready(**_: Any) -> None:
    """Create the file: the worker has started to consume."""
    FILE.touch()


celery_app.steps["worker"].add(Heartbeat)
