"""The Celery application with the tasks of every feature: `celery --app=app.celery_app worker`, and Flower."""

from typing import Any

from celery import signals

from app import discovery
from app.core.celery import celery_app
from app.core.errors import ConfigurationError
from app.core.tasks import worker

__all__ = ["celery_app", "worker"]

try:
    discovery.load_tasks()
except ConfigurationError as error:
    raise SystemExit(str(error)) from None


@signals.celeryd_after_setup.connect
def on_after_setup(**_: Any) -> None:
    """Apply the migrations before this worker consumes.

    Raises:
        SystemExit: PostgreSQL rejects the login.
    """
    from app import schema  # noqa: PLC0415 (Flower does not need Alembic)

    try:
        schema.migrate()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
