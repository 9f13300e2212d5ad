"""The Celery application: `celery -A app.celery_app worker`, and the same for Flower."""

from typing import Any

from celery import Celery, signals

from app import database, logs
from app.settings import settings
from app.worker import Heartbeat

QUEUE = "celery"

celery_app = Celery("app", broker=settings().broker_url, backend=settings().celery_result_backend)

celery_app.conf.update(
    # The queue: replicated, durable, with a topic exchange, which the broker's own delays (retries, countdowns) need.
    # Its limits and dead letters are a policy of the broker: see the definitions in docker-compose.yml.
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_default_exchange=QUEUE,
    task_default_exchange_type="topic",
    task_default_routing_key=QUEUE,
    task_create_missing_queue_type="quorum",
    task_create_missing_queue_exchange_type="topic",
    # Nothing is lost with a worker: a message is acknowledged when its run has ended, and comes back when it has not.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    # Nothing is lost on the way to the broker, and a worker comes back to it however long it was away.
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_heartbeat=30,
    broker_pool_acquire_timeout=5,
    # Limits, in seconds; a task may set its own.
    task_soft_time_limit=570,
    task_time_limit=600,
    # A worker takes no message ahead: what waits, waits in the queue, for whichever worker is free first.
    worker_prefetch_multiplier=1,
    worker_max_memory_per_child=300_000,  # KiB
    worker_soft_shutdown_timeout=20,  # seconds; docker-compose.yml waits longer than that before it kills
    # Flower sees every task from the first, and may restart pools.
    worker_send_task_events=True,
    worker_pool_restarts=True,
    # A result backend that is away for a while loses no result; see on_worker_process_init.
    result_backend_always_retry=True,
    result_backend_max_retries=3,
    result_expires=86_400,  # seconds
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_consumer="app.worker:QuorumConsumer",
    worker_hijack_root_logger=False,
    timezone="UTC",
)

celery_app.autodiscover_tasks(["app"], related_name="tasks")
celery_app.steps["worker"].add(Heartbeat)


@signals.setup_logging.connect
def on_setup_logging(**_: Any) -> None:
    """Keep Celery from setting up logs of its own."""
    logs.configure()


@signals.worker_process_init.connect
def on_worker_process_init(**_: Any) -> None:
    """Leave to the parent process the sessions that a fork copies, and be patient where the parent must not be."""
    database.engine().dispose(close=False)
    backend: Any = celery_app.backend
    backend.max_retries = 40
