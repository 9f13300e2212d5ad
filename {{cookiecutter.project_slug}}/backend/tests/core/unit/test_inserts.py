"""Runs of concurrent requests are inserted together, and fail separately."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg.errors import CannotConnectNow, UntranslatableCharacter
from sqlalchemy.exc import DataError, OperationalError

from app.core.api import inserts
from app.core.api.inserts import BATCH, insert

UNAVAILABLE = OperationalError("", {}, CannotConnectNow())
REJECTED = DataError("", {}, UntranslatableCharacter())

Answer = Callable[[list[str]], Exception | None]


class Database:
    """A stand-in for the database: it records the runs of each transaction, and fails those that `answer` rejects."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.transactions: list[list[str]] = []

    async def execute(self, _statement: object, runs: Sequence[dict[str, Any]]) -> list[Any]:
        await asyncio.sleep(0)
        ids = [run["id"] for run in runs]
        self.transactions.append(ids)
        if error := self.answer(ids):
            raise error
        return []


def outcomes(monkeypatch: pytest.MonkeyPatch, answer: Answer, ids: Sequence[str]) -> tuple[Database, list[Any]]:
    """Insert runs at the same time; return the database, and the error of each or None."""
    database = Database(answer)
    monkeypatch.setattr(inserts, "execute", database.execute)

    async def insert_all() -> list[Any]:
        return await asyncio.gather(*(insert(id=run_id) for run_id in ids), return_exceptions=True)

    return database, asyncio.run(insert_all())


def test_concurrent_requests_share_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(number) for number in range(BATCH + 1)]
    database, errors = outcomes(monkeypatch, lambda _: None, ids)
    assert database.transactions == [ids[:BATCH], ids[BATCH:]]
    assert errors == [None] * len(ids)


def test_rejected_value_fails_only_its_own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    database, errors = outcomes(monkeypatch, lambda ids: REJECTED if "bad" in ids else None, ["a", "bad", "b"])
    assert errors == [None, REJECTED, None]
    assert database.transactions == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]


def test_unavailable_database_fails_every_waiting_request_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(number) for number in range(3 * BATCH)]
    database, errors = outcomes(monkeypatch, lambda _: UNAVAILABLE, ids)
    assert len(database.transactions) == 1
    assert errors == [UNAVAILABLE] * len(ids)


def test_rejected_batch_is_not_continued_when_the_database_becomes_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    database, errors = outcomes(monkeypatch, lambda ids: REJECTED if len(ids) > 1 else UNAVAILABLE, ["a", "b", "c"])
    assert database.transactions == [["a", "b", "c"], ["a"]]
    assert errors == [UNAVAILABLE] * 3


def test_cancelled_request_does_not_affect_others(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(lambda _: None)
    monkeypatch.setattr(inserts, "execute", database.execute)

    async def cancel_the_first() -> None:
        cancelled, kept = asyncio.create_task(insert(id="a")), asyncio.create_task(insert(id="b"))
        await asyncio.sleep(0)
        cancelled.cancel()
        async with asyncio.timeout(5):
            await kept

    asyncio.run(cancel_the_first())
    assert database.transactions == [["a", "b"]]
