"""Schedules against PostgreSQL, with rows of their own: the relays of the services do not have these schedules."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.settings import settings
from app.core.tasks import crontab, every, history, schedule, schedules
from app.core.tasks.schedules import SCHEDULES, enqueue_due, install, overdue, table
from app.main import create_app
from tests.conftest import Api
from tests.core.tasks import core_add

pytestmark = pytest.mark.services

NAME = "core-schedule"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(SCHEDULES)
    define(every(60))
    run(delete(table).where(table.c.name == NAME), delete(history.runs).where(of_ticks()))
    yield
    run(delete(table).where(table.c.name == NAME))
    SCHEDULES.clear()
    SCHEDULES.update(before)


def of_ticks() -> ColumnElement[bool]:
    """Return the condition of being a run of a tick of the schedule."""
    return history.runs.c.id.endswith(schedules.tick_id(NAME, schedules.EPOCH)[14:])


def define(rule: every | crontab, grace: int = 3600) -> None:
    SCHEDULES.clear()
    schedule(core_add, rule, name=NAME, arguments={"x": 1, "y": 2}, grace=grace)


def run(*steps: Any, at_once: int = 1) -> list[Any]:
    """Run steps (statements or functions), each in a transaction; the last one several times side by side."""

    async def step(engine: Any, each: Any, barrier: asyncio.Barrier) -> Any:
        async with engine.begin() as connection:
            await barrier.wait()
            if callable(each):
                return await each(connection)
            result = await connection.execute(each)
            return list(result) if result.returns_rows else None

    async def all_steps() -> list[Any]:
        engine = create_async_engine(settings().database_url, pool_size=10)
        try:
            for each in steps[:-1]:
                await step(engine, each, asyncio.Barrier(1))
            barrier = asyncio.Barrier(at_once)
            return await asyncio.gather(*(step(engine, steps[-1], barrier) for _ in range(at_once)))
        finally:
            await engine.dispose()

    return asyncio.run(all_steps())


def row() -> Any:
    return run(select(table, func.now().label("now")).where(table.c.name == NAME))[0][0]


def late(**by: float) -> Any:
    values = {"next_tick": func.date_trunc("minute", func.now()) - timedelta(**by)}
    return update(table).where(table.c.name == NAME).values(**values)


def test_new_schedule_starts_with_its_next_tick() -> None:
    define(every(86_400))  # no tick begins during the test
    assert run(install, enqueue_due) == [0]
    found = row()
    assert found.now < found.next_tick <= found.now + timedelta(days=1)
    assert found.last_tick is None


def test_missed_ticks_are_enqueued_once_by_relays_side_by_side() -> None:
    enqueued = run(install, late(minutes=9), enqueue_due, at_once=8)
    assert sum(enqueued) in {10, 11}  # a minute may have begun meanwhile
    ids = [schedules.tick_id(NAME, row().last_tick - timedelta(minutes=each)) for each in range(10)]
    assert len(run(select(history.runs.c.id).where(history.runs.c.id.in_(ids)))[0]) == 10
    assert run(late(minutes=9), enqueue_due)[0] in {10, 11}  # the row is set back, as by a restored backup
    assert len(run(select(history.runs.c.id).where(of_ticks()))[0]) in {10, 11}


def test_ticks_before_the_grace_are_skipped() -> None:
    define(every(60), grace=300)
    assert run(install, late(days=3), enqueue_due)[0] in {4, 5, 6}


def test_number_of_missed_ticks_is_limited() -> None:
    define(every(1))
    assert run(install, late(minutes=30), enqueue_due) == [schedules.CATCH_UP]


def test_paused_schedule_moves_on_without_runs() -> None:
    pause = update(table).where(table.c.name == NAME).values(paused=True)
    define(every(3600))
    assert run(install, late(hours=9), pause, enqueue_due) == [0]
    found = row()
    assert found.next_tick > found.now
    assert found.last_tick is None


def test_changed_rule_starts_from_now() -> None:
    run(install, late(minutes=9), lambda _: asyncio.sleep(0))
    define(crontab("0 0 1 1 *"))
    assert run(install, enqueue_due) == [0]
    found = row()
    assert (found.rule, found.next_tick > found.now) == ("0 0 1 1 * UTC", True)


def test_older_version_leaves_a_changed_schedule_alone_until_it_is_abandoned() -> None:
    run(install, late(minutes=9))
    define(every(30))
    assert run(enqueue_due) == [0]
    assert row().rule == "every 60 s"
    abandoned = update(table).where(table.c.name == NAME).values(seen_at=func.now() - timedelta(minutes=3))
    assert run(abandoned, enqueue_due) == [0]
    assert row().rule == "every 30 s"


def test_overdue_schedule_is_reported() -> None:
    assert run(install, overdue()) == [[]]
    assert [each.name for each in run(late(minutes=9), overdue())[0]] == [NAME]


def test_operator_pauses_resumes_and_runs_a_schedule(api: Api) -> None:
    run(install)
    with TestClient(create_app(), "http://localhost:8060") as own:
        (listed,) = own.get("/schedules").json()
        assert (listed["name"], listed["task"], listed["when"]) == (NAME, "core_add", "every 60 s")
        assert own.post(f"/schedules/{NAME}/pause").json()["paused"]
        response = own.post(f"/schedules/{NAME}/run")
        assert response.status_code == 202
        assert api.wait_for_end(response.json()["task_id"])["result"] == 3
        assert row().paused
        assert not own.post(f"/schedules/{NAME}/resume").json()["paused"]


def test_unknown_schedule_is_not_found(api: Api) -> None:
    for action in ("pause", "resume", "run"):
        response = api.http.post(f"/schedules/{NAME}/{action}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert NAME not in [each["name"] for each in api.http.get("/schedules").json()]
    assert api.http.get("/health/ready").json()["schedules"] == "ok"
