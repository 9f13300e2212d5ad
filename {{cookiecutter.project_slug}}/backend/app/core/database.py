"""Connections to PostgreSQL, async for the API and the relay, sync for tasks, and the base class of all tables."""

from functools import cache

from sqlalchemy import Engine, MetaData, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.core.settings import settings


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


# Both ends detect a vanished peer within half a minute; the server then ends the session, and with it the claim on a
# run that nobody works on any more.
_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
}


@cache
def async_engine() -> AsyncEngine:
    """Return the engine of an API process, or of a worker process' event loop.

    It has at most 20 connections; a request waits at most 5 s for one.
    """
    return create_async_engine(
        settings().database_url,
        connect_args=_CONNECT_ARGS,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
    )


@cache
def engine() -> Engine:
    """Return the engine of a worker process: one connection for a run's claim, one for the task's own session."""
    return create_engine(settings().database_url, connect_args=_CONNECT_ARGS, pool_pre_ping=True, pool_size=2)


def autocommit_engine() -> Engine:
    """Return a view of `engine` in which each statement commits by itself, for the transitions of runs."""
    return engine().execution_options(isolation_level="AUTOCOMMIT")


def forget_connections() -> None:
    """Leave the connections that a fork has copied to the parent process."""
    if engine.cache_info().currsize:
        engine().dispose(close=False)
    engine.cache_clear()
    async_engine.cache_clear()
