"""Dramatiq with results in Redis: `python dramatiq_noop.py 5000` sends no-op tasks between two that record the time.

Two processes, with Dramatiq's default of 8 threads each.
"""

import os
import sys

import dramatiq
import marks
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RabbitmqBroker(url=os.environ["BROKER"])
broker.add_middleware(Results(backend=RedisBackend(url="redis://redis")))
dramatiq.set_broker(broker)


@dramatiq.actor
def mark() -> None:
    """Record the current time."""
    marks.mark()


@dramatiq.actor(store_results=True)
def noop() -> float:
    """Return a number."""
    return 3.0


if __name__ == "__main__":
    mark.send()
    for _ in range(int(sys.argv[1])):
        noop.send()
    mark.send()
