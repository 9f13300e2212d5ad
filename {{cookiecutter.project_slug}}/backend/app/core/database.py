"""Connections to PostgreSQL, async for the API and the relay, sync for tasks, and the base class of all tables."""

import gc
import secrets
from functools import cache
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.core.settings import settings

OWNER_LOCKS = 0x72756E
"""First key of the advisory locks that live worker processes hold; the second is the owner."""

CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""Parameters of each connection, also of a result backend in PostgreSQL."""

API_CONNECTIONS = 40
"""Connections of all API processes together, in addition to one for each relay and two for metrics, of 100 in all."""


class Base(DeclarativeBase):
    """Base class of every feature's tables; constraints get names, so that migrations can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _options(**server: str) -> dict[str, Any]:
    """Return the options of an engine; `server` are settings of its sessions.

    Both ends detect a vanished peer within half a minute; the server then ends the session and releases its locks.
    """
    server |= {
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "25s",
    }
    connect_args = {**CONNECT_ARGS, "options": " ".join(f"-c {name}={value}" for name, value in server.items())}
    return {"connect_args": connect_args, "pool_pre_ping": True, "pool_timeout": 5, "hide_parameters": True}


@cache
def async_engine() -> AsyncEngine:
    """Return the engine of an API process, or of a worker process' event loop."""
    if _owner:
        engine = create_async_engine(settings().database_url, pool_size=1, max_overflow=2, **_options())
        event.listen(engine.sync_engine, "connect", _lock_owner)
        return engine
    size = max(2, API_CONNECTIONS // settings().backend_processes)
    return create_async_engine(settings().database_url, pool_size=size, max_overflow=0, **_brief())


@cache
def relay_engine() -> AsyncEngine:
    """Return the engine of an API process' relay, which requests do not share."""
    return create_async_engine(settings().database_url, pool_size=1, max_overflow=0, **_brief())


def _brief() -> dict[str, Any]:
    """Return the options for brief transactions: the locks of a frozen API process must not stall workers."""
    return _options(idle_in_transaction_session_timeout="15s", lock_timeout="5s")


@cache
def engine() -> Engine:
    """Return the engine of a worker process for the sessions of tasks."""
    return _worker_engine()


@cache
def autocommit_engine() -> Engine:
    """Return the engine for the transitions of runs, in which each statement commits by itself.

    In a process that executes runs, no connection is tested before use: attempts repeat a statement if it was lost.
    """
    return _worker_engine(isolation_level="AUTOCOMMIT", pool_pre_ping=not _owner)


def _worker_engine(**options: Any) -> Engine:
    engine = create_engine(settings().database_url, pool_size=1, max_overflow=1, **_options() | options)
    event.listen(engine, "connect", _lock_owner)
    return engine


def is_unavailable(error: BaseException) -> bool:
    """Return whether PostgreSQL is away, restarting, out of connections or read-only: another attempt may succeed."""
    read_only = "25006"  # https://www.postgresql.org/docs/current/errcodes-appendix.html
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError)
    is_read_only = getattr(error.orig, "sqlstate", None) == read_only
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated or is_read_only


_owner = 0


def owner() -> int:
    """Return the key of the lock that every session of this worker process holds; 0 in any other process."""
    return _owner


def become_owner(*, forked: bool = False) -> None:
    """Give this worker process an owner key, and new sessions; the parent's sessions are left open after a fork."""
    global _owner  # noqa: PLW0603 (the identity of this process)
    for made in (engine, autocommit_engine):
        if made.cache_info().currsize:
            made().dispose(close=not forked)
        made.cache_clear()
    async_engine.cache_clear()
    if not forked:
        gc.collect()  # closes the sessions of the event loop, in whose thread alone they could be closed otherwise
    _owner = secrets.randbelow(2**31 - 1) + 1


def _lock_owner(connection: DBAPIConnection, _record: object) -> None:
    """Take the lock, shared, so that a new session gets it while PostgreSQL still holds a session that was cut."""
    if _owner:
        cursor = connection.cursor()
        cursor.execute(f"SELECT pg_advisory_lock_shared({OWNER_LOCKS}, {_owner})")
        cursor.close()
        connection.commit()
