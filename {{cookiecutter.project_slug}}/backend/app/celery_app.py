"""The Celery application with the tasks of every feature: `celery --app=app.celery_app worker`, and Flower."""

from app import discovery
from app.core.celery import celery_app
from app.core.errors import ConfigurationError
from app.core.tasks import worker

__all__ = ["celery_app", "worker"]

try:
    discovery.load_tasks()
except ConfigurationError as error:
    raise SystemExit(str(error)) from None
