"""Dependencies of endpoints: the relay of this process, and a database transaction."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from app.core.database import async_engine
from app.core.tasks.relay import Relay


async def current_relay(connection: HTTPConnection) -> Relay:
    """Return the relay of this process."""
    relay: Relay = connection.app.state.relay
    return relay


CurrentRelay = Annotated[Relay, Depends(current_relay)]


async def transaction(relay: CurrentRelay) -> AsyncIterator[AsyncSession]:
    """Yield a session whose transaction commits before the response is sent; an exception rolls it back."""
    async with AsyncSession(async_engine(), expire_on_commit=False) as session, session.begin():
        yield session
    relay.wake()


Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]
"""An `AsyncSession` for an endpoint; runs enqueued with it are published when its transaction has committed."""
