"""Length and consumers of each queue, from RabbitMQ's management API."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client import Gauge

from app.core.tasks import queues

READY = Gauge("flower_queue_messages_ready", "Messages ready for delivery, by queue", ["queue"])
CONSUMERS = Gauge("flower_queue_consumers", "Consumers, by task queue", ["queue"])


class QueueState(NamedTuple):
    """A queue at one moment."""

    ready: int
    consumers: int | None
    """None for the dead-letter queue, which needs no consumer, and until the broker has collected its statistics."""


def names() -> list[str]:
    """Return the task queues and the dead-letter queue."""
    return [*queues.names(), queues.DEAD_LETTERS]


def parse(response: Iterable[Mapping[str, Any]]) -> dict[str, QueueState]:
    """Return the state of each queue by name; nothing if the management API is unavailable.

    A queue that is missing at the broker has no messages and no consumers.
    """
    found = {queue["name"]: queue for queue in response}
    if not found:  # the broker always has the dead-letter queue
        return {}
    states = {}
    for name in names():
        queue = found.get(name, {"consumers": 0})
        consumers = None if name == queues.DEAD_LETTERS else queue.get("consumers")
        states[name] = QueueState(queue.get("messages_ready", 0), consumers)
    return states


def export(states: Mapping[str, QueueState]) -> None:
    """Set the Prometheus metrics; those of unknown queues are removed."""
    READY.clear()
    CONSUMERS.clear()
    for name, state in states.items():
        READY.labels(name).set(state.ready)
        if state.consumers is not None:
            CONSUMERS.labels(name).set(state.consumers)
