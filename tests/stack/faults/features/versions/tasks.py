"""Tasks in the older version of the project; `newer.py.txt` beside this file is the newer version."""

from app.core.tasks import RunContext, task


@task()
def gaining(run: RunContext, x: int) -> str:  # noqa: ARG001
    """Take one argument; the newer version takes two."""
    return f"old {x}"


@task()
def losing(run: RunContext, x: int, y: int = 0) -> str:  # noqa: ARG001
    """Take two arguments; the newer version takes one."""
    return f"old {x} {y}"


@task()
def renaming(run: RunContext, before: int) -> str:  # noqa: ARG001
    """Take an argument that has another name in the newer version."""
    return f"old {before}"
