"""The connections to PostgreSQL: asynchronous for the API and the relay, synchronous for tasks."""

from functools import cache

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.settings import settings

# A peer that vanished without a word is noticed within half a minute, on both ends: the server then ends the session
# and with it the claim on a run that nobody works on any more.
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
    """The engine of an API process: at most 20 sessions, a request waits at most 5 s for one."""
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
    """The engine of a worker process. Each statement commits by itself, so no run holds a transaction open."""
    return create_engine(
        settings().database_url,
        connect_args=_CONNECT_ARGS,
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        pool_size=1,
    )
