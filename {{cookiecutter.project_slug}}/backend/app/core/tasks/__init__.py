"""Tasks: `@task`, the history of runs, the outbox relay and the worker's extensions."""

from app.core.tasks.base import RetryIn
from app.core.tasks.context import AsyncRunContext, RunContext
from app.core.tasks.registry import task
from app.core.tasks.schedules import crontab, every, schedule

__all__ = ["AsyncRunContext", "RetryIn", "RunContext", "crontab", "every", "schedule", "task"]
