"""A task as tutorials write it: Celery's defaults and the database result backend.

The worker is started as in Celery's "First steps": `celery --app=plain worker --loglevel=INFO`. It acknowledges a
message before the task runs, so a crash loses the task.
"""

import os

from celery import Celery

celery = Celery("plain", broker=os.environ["BROKER"], backend=f"db+postgresql+psycopg://{os.environ['DATABASE']}")


@celery.task
def add(x: float, y: float) -> float:
    """Add two numbers."""
    return x + y
