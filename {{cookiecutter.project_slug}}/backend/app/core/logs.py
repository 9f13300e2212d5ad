"""Logging: one format for the application, uvicorn, Celery and Flower."""

import logging
import os
from typing import Any

import structlog

from app.core import tracing
from app.core.settings import settings

REPLACED = {
    "Received unregistered task": "unknown task %s: message rejected, see the dead-letter queue%.0s%.0s%.0s",
    "Received invalid task": "invalid message rejected, see the dead-letter queue: %s%.0s",
    "Received and deleted unknown message": "unknown message rejected, see the dead-letter queue%.0s",
    "Couldn't convert ETA": "message rejected: its ETA %r is invalid: %r%.0s",
    "Failed to cancel active request": "a request was not cancelled after the connection loss%.0s",
    "Task %(name)s[%(id)s] succeeded": "Task %(name)s[%(id)s] succeeded in %(runtime)ss",
}
"""Celery's log messages with arguments or results, by prefix, and their replacements; %.0s prints nothing."""

RETRIED = "Task %(name)s[%(id)s] retry: "
"""Celery's log message of a retry; the task logs its failed attempt itself, with the traceback."""

LEVELS = {
    "uvicorn.access": "WARNING",
    "celery.worker.strategy": "WARNING",  # a line per received task; the history has its times
    "celery.pool": "WARNING",  # logs arguments, as flower.api.tasks does, with LOG_LEVEL=DEBUG
    "flower.api.tasks": "WARNING",
    "alembic.runtime.plugins": "WARNING",  # a line per plugin
    "psycopg": "ERROR",  # SQLAlchemy raises the same, without host and user
    "aiormq": "CRITICAL",  # the relay logs a lost connection in one line
}
"""Levels of loggers whose records are redundant, or contain arguments or names of hosts."""


def origin() -> dict[str, Any]:
    """Return the columns that identify the origin of a run: `request_id`, `api_key` (its name) and `traceparent`."""
    context = structlog.contextvars.get_contextvars()
    return {**{name: context.get(name) for name in ("request_id", "api_key")}, "traceparent": tracing.current()}


def without_arguments(record: logging.LogRecord) -> bool:
    """Replace a message of Celery that contains arguments or results of a task."""
    record.msg = next((text for start, text in REPLACED.items() if str(record.msg).startswith(start)), record.msg)
    return True


def is_no_retry(record: logging.LogRecord) -> bool:
    """Return whether a record is to be logged: any but Celery's message of a retry."""
    return not str(record.msg).startswith(RETRIED)


def log_from_signal(message: object, *_: Any) -> None:
    """Log a message of Celery's signal handlers; these may interrupt a handler of `logging`, so none is used."""
    record = logging.LogRecord("celery.apps.worker", logging.INFO, "", 0, str(message), None, None)
    os.write(2, f"{logging.root.handlers[0].format(record)}\n".encode())  # standard error


def configure() -> None:
    """Send every log record and warning to standard error, as JSON lines or for a console (`LOG_FORMAT`)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    # Tracebacks are plain: those of rich, where it is installed, show variables.
    final: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if settings().log_format == "json"
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    handler.addFilter(without_arguments)
    handler.addFilter(is_no_retry)
    logging.basicConfig(handlers=[handler], level=settings().log_level, force=True)
    logging.captureWarnings(capture=True)
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
