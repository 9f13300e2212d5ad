"""Queues of this service. A task selects one with `@task(queue=...)`, a worker its own with `WORKER_QUEUES`."""

QUEUES = ["celery"]
