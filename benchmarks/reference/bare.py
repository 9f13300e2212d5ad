"""Bare Celery without results: `python bare.py 5000` sends as many no-op tasks between two that record the time.

The worker sends task events (`--task-events`), which nobody receives, and logs nothing for a task.
"""

import os
import sys

import marks
from celery import Celery

celery = Celery("bare", broker=os.environ["BROKER"])
celery.conf.update(task_default_queue="bare", task_ignore_result=True)

mark = celery.task(marks.mark, name="mark")


@celery.task
def noop() -> None:
    """Do nothing."""


if __name__ == "__main__":
    mark.delay()
    for _ in range(int(sys.argv[1])):
        noop.delay()
    mark.delay()
