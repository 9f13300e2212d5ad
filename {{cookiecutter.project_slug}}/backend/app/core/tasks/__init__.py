"""Tasks: `@task`, the history of runs, the outbox relay and the worker's extensions."""

from app.core.tasks.context import AsyncRunContext, RunContext
from app.core.tasks.registry import task

__all__ = ["AsyncRunContext", "RunContext", "task"]
