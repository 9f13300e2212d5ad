"""Events that a worker's pool process sends to Flower by itself; the main process sends all others."""

import time
from functools import cache
from typing import Any

import structlog
from amqp.exceptions import AMQPError
from celery.events import EventDispatcher
from kombu.exceptions import OperationalError

from app.core.celery import celery_app

logger = structlog.get_logger(__name__)

TIMEOUT = 2.0  # seconds
PAUSE = 30.0  # seconds without events after a failure: an unresponsive broker must not slow down tasks

_paused_until = 0.0


@cache
def _dispatcher(worker: str) -> EventDispatcher:
    options = {"confirm_publish": False, "write_timeout": TIMEOUT}
    connection = celery_app.connection_for_write(transport_options=options, connect_timeout=TIMEOUT)
    dispatcher: EventDispatcher = celery_app.events.Dispatcher(connection, hostname=worker, buffer_while_offline=False)
    return dispatcher


def send(worker: str, kind: str, **fields: Any) -> None:
    """Send an event as `worker`, Celery's node name; an unavailable broker only costs the event."""
    global _paused_until  # noqa: PLW0603 (one connection and one pause for each process)
    if time.monotonic() < _paused_until:
        return
    try:
        _dispatcher(worker).send(kind, **fields)
    except (AMQPError, OperationalError, OSError) as error:
        if connection := _dispatcher(worker).connection:
            connection.collect()  # it may have sent a part of a frame
        _dispatcher.cache_clear()
        _paused_until = time.monotonic() + PAUSE
        logger.warning("events paused: the broker is unavailable", error=str(error))
