"""The queues of the service: one list, which workers, relay, health checks and Flower share."""

import re
from collections.abc import Sequence

from kombu import Exchange, Queue

from app.core.celery import celery_app
from app.core.errors import ConfigurationError

DEFAULT: str = celery_app.conf.task_default_queue
EXCHANGE: str = celery_app.conf.task_default_exchange
DEAD_LETTERS = "dead-letters"
RESERVED = {DEAD_LETTERS, "celeryev"}
HIGHEST_PRIORITY = 9
ARGUMENTS = {"x-queue-type": "quorum"}  # a declaration fails if the queue exists with others (PRECONDITION_FAILED)


def define(names: Sequence[str]) -> None:
    """Set the list of queues, before any of them is used; raises `ConfigurationError` if it is invalid."""
    place = "app/features/queues.py"
    if DEFAULT not in names:
        message = f'{place}: the default queue is missing (add "{DEFAULT}" to QUEUES)'
        raise ConfigurationError(message)
    for name in names:
        # a dot, * or # would have a meaning in the routing keys of the topic exchange
        if not re.fullmatch(r"[\w-]+", name, re.ASCII) or name in RESERVED or name.startswith("celery_delayed_"):
            message = f'{place}: "{name}" is reserved or invalid (use letters, digits, dashes and underscores)'
            raise ConfigurationError(message)
        if list(names).count(name) > 1:
            message = f'{place}: "{name}" is listed twice (remove one)'
            raise ConfigurationError(message)
    exchange = Exchange(EXCHANGE, type="topic")
    celery_app.conf.task_queues = [Queue(name, exchange, routing_key=name, queue_arguments=ARGUMENTS) for name in names]


def names() -> list[str]:
    """Return the names of the queues that tasks are sent to, without the dead-letter queue."""
    return [queue.name for queue in celery_app.conf.task_queues]


def selected(selection: str) -> list[str]:
    """Return the queues that `WORKER_QUEUES` lists, none for all; exit with one line if one is unknown."""
    listed = [name.strip() for name in selection.split(",") if name.strip()]
    if unknown := sorted(set(listed) - set(names())):
        message = f"WORKER_QUEUES: unknown queue {', '.join(unknown)} (choose from {', '.join(names())})"
        raise SystemExit(message)
    return listed


define([DEFAULT])
