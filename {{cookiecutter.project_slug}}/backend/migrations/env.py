"""Alembic environment: `alembic upgrade heads`, and `alembic revision --autogenerate -m "..."`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic import context
from alembic.operations import MigrationScript
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import func, select

from app import discovery
from app.core import database
from app.core.errors import ConfigurationError

MIGRATION_LOCK = 0x6D696772  # one process migrates, the others wait
FEATURES = Path(__file__).parent / "features"


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave Celery's own tables alone."""
    return kind != "table" or name not in {"celery_taskmeta", "celery_tasksetmeta"}


def process_revision_directives(_context: object, _revision: object, directives: Iterable[MigrationScript]) -> None:
    """Put a new migration on the features' branch.

    Raises:
        CommandError: there is nothing to migrate.
    """
    autogenerate = getattr(context.config.cmd_opts, "autogenerate", None)
    if autogenerate is None:  # `alembic check`
        return
    for script in directives:
        if autogenerate and (script.upgrade_ops is None or script.upgrade_ops.is_empty()):
            message = "no changes found (define tables in app/features/<name>/tables.py, on app.core.database.Base)"
            raise CommandError(message)
        scripts = ScriptDirectory.from_config(context.config)
        heads = [head for head in scripts.get_revisions("heads") if head and Path(head.path).parent == FEATURES]
        script.head = heads[0].revision if heads else "base"
        script.branch_label = None if heads else "features"
        script.version_path = str(FEATURES)


def migrate(connection: Any) -> None:
    """Run the migrations, each in its own transaction."""
    connection.execute(select(func.pg_advisory_lock(MIGRATION_LOCK)))
    # A statement that waits for a table's lock stalls all others; the next start of the API migrates again.
    connection.execute(select(func.set_config("lock_timeout", "10s", False)))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=database.Base.metadata,
            include_name=include_name,
            process_revision_directives=process_revision_directives,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.execute(select(func.pg_advisory_unlock(MIGRATION_LOCK)))
        connection.commit()


try:
    discovery.load_tasks()
except ConfigurationError as error:
    raise CommandError(str(error)) from None
engine = database.engine()
with engine.connect() as connection:
    migrate(connection)
engine.dispose()  # the process may be a worker, which forks afterwards
