"""Extensions of Celery's worker: a liveness file, and a consumer that fits quorum queues."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import structlog
from celery import bootsteps, signals
from celery.apps import worker as celery_worker
from celery.worker import WorkController, control
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from kombu import pools

from app.core import database, logs
from app.core.celery import celery_app
from app.core.settings import settings
from app.core.tasks import history, queues
from app.core.tasks.base import RecordedTask, in_background

logger = structlog.get_logger(__name__)
vars(celery_worker)["safe_say"] = logs.log_from_signal  # Celery's own prints plain text

FILE = Path("/tmp/worker.alive")  # noqa: S108 (a tmpfs of the container)
INTERVAL = 5.0  # seconds
SILENCE_TIMEOUT = 35.0  # seconds; the heartbeat interval is 30


def touch() -> None:
    """Touch the file if the worker has started to consume."""
    if FILE.exists():
        FILE.touch()


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file while the worker's event loop runs or waits for the broker, once the worker consumes.

    The health check then only reads the age of a file.
    """

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: WorkController, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        FILE.unlink(missing_ok=True)

    def start(self, worker: WorkController) -> None:
        """Start to touch the file."""
        timer: Any = worker.timer
        timer.call_repeatedly(INTERVAL, touch)

    def stop(self, worker: WorkController) -> None:  # noqa: ARG002 (the bootstep's interface)
        """Remove the file."""
        FILE.unlink(missing_ok=True)


@control.control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **options: Any) -> Any:
    """Revoke runs as Celery does; SIGTERM, which processes ignore with `REMAP_SIGTERM`, means the default signal."""
    return vars(control)["revoke"](state, task_id, terminate, None if signal == "SIGTERM" else signal, **options)


class QuorumConsumer(Consumer):
    """Celery's consumer, extended for quorum queues."""

    connection: Any
    event_dispatcher: Any
    qos: Any
    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]

    @override
    def connect(self) -> Any:
        """Connect and declare every queue: Celery declares only those it consumes, but binds all of them."""
        connection = super().connect()
        for queue in celery_app.conf.task_queues:
            queue(connection.default_channel).declare()
        return connection

    @override
    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and touch the file between attempts: to restart the worker would not bring the broker back."""
        ensure = conn.ensure_connection

        def patiently(*args: Any, callback: Callable[[], None], **options: Any) -> Any:
            def between_attempts() -> None:
                touch()
                callback()

            return ensure(*args, callback=between_attempts, **options)

        conn.ensure_connection = patiently
        return super().ensure_connected(conn)

    @override
    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Return the connection for events, which must not block the worker's event loop.

        It has no publisher confirms; and while an alarm of the broker blocks it, no events are sent.
        """
        options = {
            "confirm_publish": False,
            "on_blocked": lambda _: setattr(self.event_dispatcher, "enabled", False),
            "on_unblocked": lambda: setattr(self.event_dispatcher, "enabled", True),
        }
        connection = self.app.connection_for_write(url, heartbeat=heartbeat, transport_options=options)
        return self.ensure_connected(connection)

    @override
    def register_with_event_loop(self, hub: Any) -> None:
        """Check every few seconds that the broker still sends heartbeats."""
        super().register_with_event_loop(hub)
        heard = {"bytes": -1, "at": time.monotonic(), "checked": time.monotonic()}

        def check() -> None:
            """Give up a silent connection, and end the running tasks, before the broker redelivers their messages.

            RabbitMQ does so after two to three heartbeat intervals, Celery would give up after two and a half.
            """
            now, received = time.monotonic(), self.connection._connection.bytes_recv
            was_frozen = now - heard["checked"] > 2 * INTERVAL  # what the broker has sent meanwhile is still unread
            if received != heard["bytes"] or was_frozen:
                heard.update(bytes=received, at=now)
            heard["checked"] = now
            if now - heard["at"] > SILENCE_TIMEOUT:
                message = "the broker is silent"
                raise ConnectionResetError(message)

        hub.timer.call_repeatedly(INTERVAL, check)

    @override
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """End the running tasks, whose messages come back. Celery does the same, but waits for the result backend."""
        self._exclude_active()
        for request in tuple(worker_state.active_requests):
            request.cancel(self.pool, emit_retry=False)
        super().on_connection_error_after_connected(exc)

    @override
    def cancel_active_requests(self) -> None:
        """End the running tasks at the end of a graceful shutdown."""
        self._exclude_active().join(timeout=5)
        super().cancel_active_requests()

    def _exclude_active(self) -> threading.Thread:
        active = [request.id for request in worker_state.active_requests]
        return in_background(history.exclude_from_losses(active, RecordedTask.node))

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
def on_after_setup(sender: str, instance: WorkController, **_: Any) -> None:
    """Select the queues of this worker, and create the main process' engine.

    Raises:
        SystemExit: `WORKER_QUEUES` names an unknown queue.
    """
    # A thread that creates it later holds import locks; a pool process forked meanwhile would wait for them forever.
    database.autocommit_engine()
    RecordedTask.node = sender
    # Replies to Flower must not block the event loop during an alarm of the broker.
    app: Any = instance.app
    unconfirmed = app.connection_for_write(transport_options={"confirm_publish": False})
    app.control.mailbox._producer_pool = pools.producers[unconfirmed]
    app.amqp.queues.select(queues.selected(settings().worker_queues))


@signals.worker_ready.connect
def on_worker_ready(**_: Any) -> None:
    """Create the file: the worker has started to consume."""
    FILE.touch()


celery_app.steps["worker"].add(Heartbeat)
