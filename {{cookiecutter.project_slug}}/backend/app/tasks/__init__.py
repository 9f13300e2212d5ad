"""The tasks: each module here is found by itself, and each function in it that is decorated with `task` is a task."""

import importlib
import pkgutil

from app.tasks.base import REGISTRY, RecordedTask

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["REGISTRY", "RecordedTask"]
