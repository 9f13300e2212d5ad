"""The Celery application and its configuration; `app.celery_app` adds the tasks of every feature."""

import ssl
from typing import Any

from celery import Celery, signals

from app.core import database, logs, tracing
from app.core.settings import settings

celery_app = Celery("app", broker=settings().broker_url, backend=settings().celery_result_backend)

celery_app.conf.update(
    # Quorum queues and a topic exchange, which native delayed delivery (countdowns) requires.
    # Limits and the dead-letter exchange are a policy: see rabbitmq/definitions.json.
    task_default_queue="celery",
    task_default_queue_type="quorum",
    task_default_exchange="celery",
    task_default_exchange_type="topic",
    task_default_routing_key="celery",
    task_create_missing_queue_type="quorum",
    task_create_missing_queue_exchange_type="topic",
    # A message is acknowledged when its attempt has ended, and requeued when its worker is lost.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    # Publisher confirms; a worker reconnects however long the broker was away.
    broker_transport_options={"confirm_publish": True},
    # Celery by itself would accept a certificate of any host.
    broker_use_ssl=settings().rabbitmq_tls
    and {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": settings().rabbitmq_host},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_heartbeat=30,
    broker_pool_acquire_timeout=5,
    # Default limits in seconds; a task may set its own.
    task_soft_time_limit=570,
    task_time_limit=600,
    # One message for each process and queue: others stay in the queue, for the first worker that is free. RabbitMQ
    # counts for each queue, since quorum queues have no limit for a whole channel. See WORKER_PREFETCH in .env.
    worker_prefetch_multiplier=1,
    worker_max_memory_per_child=300_000,  # KiB
    worker_soft_shutdown_timeout=20,  # seconds; less than stop_grace_period in docker-compose.yml
    # Flower sees every task from its start, and may restart pools.
    worker_send_task_events=True,
    worker_pool_restarts=True,
    # No result is lost while the result backend is away; see on_worker_process_init.
    result_backend_always_retry=True,
    result_backend_max_retries=3,
    result_expires=86_400,  # seconds
    database_engine_options={"hide_parameters": True, "connect_args": database.CONNECT_ARGS},
    worker_consumer="app.core.tasks.worker:QuorumConsumer",
    timezone="UTC",
)


@signals.setup_logging.connect
def on_setup_logging(**_: Any) -> None:
    """Replace Celery's own logging configuration."""
    logs.configure()


@signals.worker_process_init.connect
def on_worker_process_init(**_: Any) -> None:
    """Give the process its own database connections, and retry results longer than the parent may block."""
    tracing.configure("worker")
    database.become_owner(forked=True)
    backend: Any = celery_app.backend
    backend.max_retries = 40


@signals.worker_process_shutdown.connect
def on_worker_process_shutdown(**_: Any) -> None:
    """Send the last spans: a process of the pool ends without exit handlers."""
    tracing.shutdown()
