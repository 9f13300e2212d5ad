import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from sqlalchemy import Select
from sqlalchemy.exc import OperationalError

from app.core.api import waiting
from app.core.api.runs import TaskRun
from app.core.api.waiting import TICK, wait_for_end

NOW = datetime.now(UTC)
LONG = 60.0  # seconds, longer than any test


class Database:
    """The ended runs, and the ids of each statement that selected them."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.statements: list[list[str]] = []
        self.errors: list[Exception] = []
        self._executed = asyncio.Event()

    async def execute(self, statement: Select[Any]) -> list[Any]:
        (ids,) = (value for value in statement.compile().params.values() if isinstance(value, list))
        self.statements.append(sorted(ids))
        self._executed.set()
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop()
        return [row(run_id) for run_id in ids if run_id in self.ended]

    async def wait_for_statements(self, count: int = 1) -> None:
        """Return after `count` more statements."""
        async with asyncio.timeout(5):
            for _ in range(count):
                self._executed.clear()
                await self._executed.wait()


class Clock:
    """A clock that moves by one tick with each reading, so that counts do not depend on the machine."""

    TICK = 0.002

    def __init__(self) -> None:
        self.readings = 0

    def monotonic(self) -> float:
        self.readings += 1
        return (self.readings + 0.5) * self.TICK

    async def pass_ticks(self, count: int) -> None:
        end = self.readings + count
        for _ in range(100 * count):
            if self.readings >= end:
                return
            await asyncio.sleep(self.TICK)
        raise TimeoutError


def row(run_id: str) -> Any:
    fields = dict.fromkeys(TaskRun.model_fields)
    fields |= {"name": "add", "queue": "celery", "arguments": {}, "state": "SUCCESS", "attempts": 1, "accepted_at": NOW}
    return SimpleNamespace(**fields | {"id": run_id})


def request(disconnected: asyncio.Event | None = None) -> Request:
    """Return a request with a body, whose client disconnects when the event is set."""
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await (disconnected or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    made = Database()
    monkeypatch.setattr(waiting, "execute", made.execute)
    yield made
    assert not made.errors


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, and check that nothing waits or polls afterwards."""

    async def complete() -> None:
        await scenario()
        await asyncio.sleep(3 * TICK)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(complete())


def test_waiters_share_one_statement(database: Database) -> None:
    async def scenario() -> None:
        ids = [f"id-{number}" for number in range(100)]
        waits = [asyncio.create_task(wait_for_end(request(), run_id, LONG)) for run_id in (*ids, *ids)]
        while sorted(ids) not in database.statements:  # not all may wait at the first ones
            await database.wait_for_statements()
        database.ended.update(ids)
        ended = await asyncio.gather(*waits)
        assert [each and each.task_id for each in ended] == [*ids, *ids]

    run(scenario)


def test_older_waiters_are_polled_less_often(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(waiting, "TICK", Clock.TICK)
    monkeypatch.setattr(waiting, "time", clock)

    async def scenario() -> None:
        old = asyncio.create_task(wait_for_end(request(), "old", LONG))
        await clock.pass_ticks(250)
        assert 5 < len(database.statements) < 80
        database.statements.clear()
        new = asyncio.create_task(wait_for_end(request(), "new", LONG))
        await clock.pass_ticks(50)
        polled = [run_id for ids in database.statements for run_id in ids]
        assert 0 < polled.count("old") < polled.count("new") / 2
        assert ["new", "old"] in database.statements
        database.ended.update(("old", "new"))
        assert await old
        assert await new

    run(scenario)


def test_wait_ends_after_its_timeout(database: Database) -> None:
    async def scenario() -> None:
        began = asyncio.get_running_loop().time()
        assert await wait_for_end(request(), "id", 0.1) is None
        assert 0.09 < asyncio.get_running_loop().time() - began < LONG / 2

    run(scenario)


def test_polls_end_when_the_client_disconnects(database: Database) -> None:
    async def scenario() -> None:
        disconnected = asyncio.Event()
        waits = [
            asyncio.create_task(wait_for_end(request(disconnected), "gone", LONG)),
            asyncio.create_task(wait_for_end(request(), "connected", LONG)),
        ]
        await database.wait_for_statements()
        disconnected.set()
        assert await waits[0] is None
        database.statements.clear()
        await database.wait_for_statements(2)
        assert database.statements == [["connected"]] * 2
        database.ended.add("connected")
        assert await waits[1]

    run(scenario)


def test_waiting_request_gets_a_response_when_the_server_stops(database: Database) -> None:
    async def scenario() -> None:
        wait = asyncio.create_task(wait_for_end(request(), "id", LONG))
        await database.wait_for_statements()
        wait.cancel()
        assert await wait is None

    run(scenario)


def test_polls_continue_after_a_database_error(database: Database) -> None:
    async def scenario() -> None:
        database.errors.append(OperationalError("SELECT", {}, Exception("unavailable")))
        database.ended.add("id")
        assert await wait_for_end(request(), "id", LONG)
        assert len(database.statements) == 2

    run(scenario)


def test_polls_start_again_after_an_unexpected_error(database: Database) -> None:
    async def scenario() -> None:
        database.errors.append(ValueError("unexpected"))
        wait = asyncio.create_task(wait_for_end(request(), "id", LONG))
        await database.wait_for_statements()
        wait.cancel()
        assert await wait is None
        database.ended.add("id")
        assert await wait_for_end(request(), "id", LONG)

    run(scenario)
