"""The transaction of endpoints, against the database."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from starlette.types import Message, Receive, Scope, Send

from app.core import database
from app.core.api import Transaction
from app.core.tasks.relay import Relay
from tests.conftest import Api
from tests.core.tasks import core_add

pytestmark = pytest.mark.services


class RecordingRelay(Relay):
    woken = 0

    def wake(self) -> None:
        self.woken += 1


ids: list[str] = []


def endpoint(fail: Exception | None) -> Callable[[Transaction], Awaitable[str]]:
    async def enqueue(session: Transaction) -> str:
        (run_id,) = (await session.execute(core_add.enqueue(x=1, y=1))).one()
        ids.append(run_id)
        if fail:
            raise fail
        return str(run_id)

    return enqueue


@pytest.mark.parametrize(
    ("fail", "status", "woken"),
    [(None, 200, 1), (HTTPException(409), 409, 0), (ZeroDivisionError(), 500, 0)],
)
def test_transaction_commits_before_the_response_or_rolls_back(
    api: Api, fail: Exception | None, status: int, woken: int
) -> None:
    app = FastAPI()
    relay = app.state.relay = RecordingRelay()
    app.post("/")(endpoint(fail))

    visible: list[bool] = []

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and record whether the row is visible when its response starts."""

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                visible.append(api.http.get(f"/tasks/{ids[-1]}").status_code == 200)
            await send(message)

        await app(scope, receive, send_observed)

    async def post() -> int:
        transport = httpx2.ASGITransport(app=observed, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/")
        await database.async_engine().dispose()
        return response.status_code

    assert asyncio.run(post()) == status
    assert visible == [status == 200]
    assert relay.woken == woken
    if woken:
        assert api.wait_for_end(ids[-1])["state"] == "SUCCESS"
    else:
        assert api.http.get(f"/tasks/{ids[-1]}").status_code == 404


def test_enqueue_works_on_connections(api: Api) -> None:
    with database.engine().begin() as connection:
        first = connection.execute(core_add.enqueue(x=1, y=1)).scalar_one()

    async def enqueue() -> str:
        async with database.async_engine().begin() as connection:
            run_id: str = (await connection.execute(core_add.enqueue(x=2, y=2))).scalar_one()
        await database.async_engine().dispose()
        return run_id

    assert [api.wait_for_end(run_id)["result"] for run_id in (first, asyncio.run(enqueue()))] == [2, 4]
