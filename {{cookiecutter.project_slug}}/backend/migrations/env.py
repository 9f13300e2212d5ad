"""Alembic's way to the database: `alembic upgrade head`, and `alembic revision --autogenerate -m "..."`."""

from alembic import context
from sqlalchemy import func, select

from app import database, history

MIGRATION_LOCK = 0x6D696772  # one process migrates, the others wait


def ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave alone the tables in the same database that are not ours."""
    return kind != "table" or name in history.metadata.tables


with database.engine().execution_options(isolation_level="READ COMMITTED").begin() as connection:
    connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    context.configure(connection=connection, target_metadata=history.metadata, include_name=ours)
    with context.begin_transaction():
        context.run_migrations()
