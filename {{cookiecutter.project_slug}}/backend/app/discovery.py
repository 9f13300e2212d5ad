"""Discovery of features: the queues, tables, tasks, schedules and endpoints of every package in `app/features`."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from app.core.errors import ConfigurationError
from app.core.tasks import queues, registry
from app.features import queues as team

PACKAGE = "app.features"
FOLDER = Path(__file__).parent / "features"


def load_tasks() -> None:
    """Define the queues, and import the tables, tasks and schedules of every feature.

    Raises:
        ConfigurationError: a feature, a queue, a task or a schedule is invalid.
    """
    queues.define(team.QUEUES)
    load("tables")
    load("tasks")
    load("schedule")
    registry.check_queues()


def load(module: str) -> list[ModuleType]:
    """Import `<feature>.<module>` of every feature that has it, in alphabetical order.

    Raises:
        ConfigurationError: a feature is not an importable package.
    """
    found = [f"{PACKAGE}.{name}.{module}" for name in names()]
    return [import_module(name) for name in found if find_spec(name)]


def names() -> list[str]:
    """Return the name of every feature: a folder with Python files, as a branch switch may leave others behind.

    Raises:
        ConfigurationError: a feature is not an importable package.
    """
    folders = [path for path in sorted(FOLDER.iterdir()) if any(path.glob("*.py"))]
    for path in folders:
        place = f"app/features/{path.name}"
        problem = ""
        if not path.name.isidentifier():
            problem = "not a valid package name (use lowercase letters, digits and underscores)"
        elif path.with_suffix(".py").exists():
            problem = f"{place}.py has the same name (rename one of them)"
        elif not (path / "__init__.py").exists():
            problem = "__init__.py is missing (create it; it may be empty)"
        if problem:
            message = f"{place}: {problem}"
            raise ConfigurationError(message)
    return [path.name for path in folders]
