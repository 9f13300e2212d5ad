"""Dead letters: `python -m app.dead_letters` counts them, and sends them back to their queues with `--redrive`."""

import argparse
import sys
from collections import Counter
from typing import Any

from kombu.exceptions import OperationalError

from app import discovery
from app.core.celery import celery_app
from app.core.errors import ConfigurationError
from app.core.tasks import queues

DEATH = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""Prefixes of the headers that the broker adds."""


def process(channel: Any, *, redrive: bool = False) -> Counter[tuple[str, ...]]:
    """Count the dead letters by task, reason, queue and outcome; `redrive` sends each back to the queue it came from.

    A message is acknowledged after the broker has confirmed its copy. The others return to the dead-letter queue when
    the channel is closed. Messages that arrive meanwhile are left alone, so that none is sent back twice.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for _ in range(channel.queue_declare(queues.DEAD_LETTERS, passive=True).message_count):
        message = channel.basic_get(queues.DEAD_LETTERS)
        if message is None:
            break
        headers = message.headers or {}
        queue = headers.get("x-last-death-queue", "unknown")  # the first one may be a queue of delayed messages
        sent = redrive and queue in queues.names()
        if sent:
            message.properties["application_headers"] = {
                name: value for name, value in headers.items() if not name.startswith(DEATH)
            }
            channel.basic_publish(message, routing_key=queue, mandatory=True)
            channel.basic_ack(message.delivery_tag)
        task, reason = headers.get("task", "unknown"), headers.get("x-last-death-reason", "unknown")
        counts[task, reason, queue, "sent back" if sent else "kept"] += 1
    return counts


def main() -> None:
    """Print the counts, without arguments of tasks."""
    parser = argparse.ArgumentParser(prog="python -m app.dead_letters", description="Count the dead letters.")
    parser.add_argument("--redrive", action="store_true", help="send them back to their queues")
    redrive = parser.parse_args().redrive
    try:
        discovery.load_tasks()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    try:
        with celery_app.connection_for_write() as connection:
            counts = process(connection.default_channel, redrive=redrive)
    except OperationalError as error:
        message = f"RabbitMQ: {error} (start it with docker compose up --wait rabbitmq)"
        raise SystemExit(message) from None
    lines = [f"{counts.total()} dead letters"]
    for (task, reason, queue, outcome), count in sorted(counts.items()):
        lines.append(f"{count:>7}  task {task}, {reason} in queue {queue}: {outcome}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
