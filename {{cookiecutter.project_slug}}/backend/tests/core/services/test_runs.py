"""Runs from enqueueing to their end, as reported by the API."""

import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.tasks import history
from app.core.tasks.base import RecordedTask
from app.main import create_app
from tests.conftest import Api
from tests.core.services.conftest import LOG
from tests.core.tasks import (
    Item,
    core_add,
    core_async,
    core_async_revoked,
    core_async_slow,
    core_commit,
    core_enqueue,
    core_fail,
    core_flaky,
    core_later,
    core_price,
    core_recursive,
    core_revoked,
    core_sleep,
    core_slow,
)

pytestmark = pytest.mark.services

Enqueue = Callable[[Any], str]


def logged(text: str) -> list[dict[str, Any]]:
    """Return the complete lines of the worker's log with this text; its other lines may be half written."""
    return [json.loads(line) for line in LOG.read_text().splitlines(keepends=True) if text in line and line[-1] == "\n"]


def wait_for_lines(text: str, task_ids: set[str]) -> list[dict[str, Any]]:
    """Return the lines with this text once each of these runs has one: an end is recorded before it is logged."""
    deadline = time.monotonic() + 30
    while True:
        lines = logged(text)
        if {line["task_id"] for line in lines} >= task_ids:
            return lines
        assert time.monotonic() < deadline, LOG.read_text()
        time.sleep(0.1)


def test_run_is_executed_and_recorded(api: Api, enqueue: Enqueue) -> None:
    run = api.wait_for_end(enqueue(core_add.enqueue(x=2, y=3)))
    assert (run["state"], run["result"], run["arguments"]) == ("SUCCESS", 5, {"x": 2, "y": 3})
    assert (run["queue"], run["attempts"]) == ("core-tests", 1)
    assert run["worker"].startswith("core-tests@")
    times = [datetime.fromisoformat(run[time]) for time in ("accepted_at", "started_at", "ended_at")]
    assert times == sorted(times)


def test_rolled_back_enqueue_leaves_no_row_and_no_message(api: Api, enqueue: Enqueue, session: Session) -> None:
    rolled_back = session.execute(core_add.enqueue(x=1, y=1)).scalar_one()
    session.rollback()
    assert api.wait_for_end(enqueue(core_add.enqueue(x=2, y=2)))["state"] == "SUCCESS"
    assert api.http.get(f"/tasks/{rolled_back}").status_code == 404


def test_rich_types_survive_the_round_trip(api: Api, enqueue: Enqueue) -> None:
    item = Item(day=date(2026, 1, 31), price=Decimal("10.50"), key=UUID(int=1))
    run = api.wait_for_end(enqueue(core_price.enqueue(item, factor=Decimal("2.0"), days={date(2026, 2, 1): 1})))
    assert run["state"] == "SUCCESS", run["traceback"]
    assert run["arguments"]["item"] == {"day": "2026-01-31", "price": "10.50", "key": str(UUID(int=1)), "tags": []}
    assert Item.model_validate(run["result"]) == item.model_copy(update={"price": Decimal("21.000")})


def test_progress_is_visible_while_the_task_runs(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_slow.enqueue(duration=60))
    run = api.wait_for(task_id, lambda run: (run["progress"] or {"done": 0})["done"] >= 1)
    assert run["state"] == "STARTED"
    assert run["progress"]["total"] == 60
    assert task_id in [each["task_id"] for each in api.http.get("/tasks/").json()["tasks"]]
    assert api.http.delete(f"/tasks/{task_id}").status_code == 200


def test_failure_keeps_error_and_traceback(api: Api, enqueue: Enqueue) -> None:
    run = api.wait_for_end(enqueue(core_fail.enqueue()))
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "ValueError: on purpose", 1)
    assert "tests/core/tasks.py" in run["traceback"]
    assert run["arguments"] == {}


def test_failure_is_logged_with_task_and_id(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_fail.enqueue())
    api.wait_for_end(task_id)
    lines = wait_for_lines(task_id, {task_id})
    assert [(line["level"], line["task"]) for line in lines] == [("error", "core_fail")]
    assert "ValueError: on purpose" in lines[0]["exception"]


def test_id_of_a_request_is_that_of_all_runs_that_follow(api: Api) -> None:
    request_id = str(uuid4())
    with TestClient(create_app(), "http://localhost:8060") as own:
        headers = {"X-Request-ID": request_id}
        failed = own.post("/tasks/core_fail", headers=headers).json()["task_id"]
        first = own.post("/tasks/core_enqueue", params={"x": 1}, headers=headers).json()["task_id"]
    enqueued = api.wait_for_end(first)["result"]
    assert [api.wait_for_end(each)["request_id"] for each in (failed, first, enqueued)] == [request_id] * 3
    lines = wait_for_lines(request_id, {failed, first})
    assert {line["request_id"] for line in lines} == {request_id}


@pytest.mark.parametrize(("failures", "state", "attempts"), [(1, "SUCCESS", 2), (10, "FAILURE", 3)])
def test_retries_end_in_success_or_failure(
    api: Api, enqueue: Enqueue, failures: int, state: str, attempts: int
) -> None:
    run = api.wait_for_end(enqueue(core_flaky.enqueue(failures=failures)), timeout=60)
    assert (run["state"], run["attempts"]) == (state, attempts)
    assert (run["error"] is None) == (state == "SUCCESS")


def test_writes_of_a_failed_attempt_are_rolled_back(api: Api, enqueue: Enqueue) -> None:
    marker = float(uuid4().int % 10**9)
    run = api.wait_for_end(enqueue(core_enqueue.enqueue(x=marker, fail=True)))
    assert (run["state"], run["attempts"]) == ("SUCCESS", 2)
    assert api.wait_for_end(run["result"])["result"] == marker + 2
    began = run["accepted_at"]
    written = [each for each in api.history(name="core_add", since=began) if each["arguments"]["x"] == marker]
    assert [each["task_id"] for each in written] == [run["result"]]


@pytest.mark.parametrize("revoked", [core_revoked, core_async_revoked])
def test_writes_of_a_revoked_run_are_rolled_back(api: Api, enqueue: Enqueue, revoked: RecordedTask[..., Any]) -> None:
    marker = float(uuid4().int % 10**9)
    run = api.wait_for_end(enqueue(revoked.enqueue(x=marker)))
    assert run["state"] == "REVOKED"
    assert api.wait_for_end(enqueue(core_add.enqueue(x=0, y=0)))["state"] == "SUCCESS"
    written = api.history(name="core_add", since=run["accepted_at"])
    assert marker not in [each["arguments"]["x"] for each in written]


def test_commit_by_a_task_is_an_error(api: Api, enqueue: Enqueue) -> None:
    run = api.wait_for_end(enqueue(core_commit.enqueue()))
    assert run["state"] == "FAILURE"
    assert "run.session commits with the end of the run" in run["error"]


def test_task_calls_itself_directly(api: Api, enqueue: Enqueue) -> None:
    assert api.wait_for_end(enqueue(core_recursive.enqueue(n=4)))["result"] == 24


def test_async_tasks_share_one_event_loop_per_process(api: Api, enqueue: Enqueue) -> None:
    runs = [api.wait_for_end(enqueue(core_async.enqueue(x=number))) for number in range(6)]
    assert {run["state"] for run in runs} == {"SUCCESS"}, runs
    numbers: dict[str, list[int]] = {}
    for run in runs:
        process, number = run["result"][1].split(":")
        numbers.setdefault(process, []).append(int(number))
    for counted in numbers.values():
        assert counted == list(range(counted[0], counted[0] + len(counted)))
    assert max(map(len, numbers.values())) >= 3  # the worker has two processes
    for number, run in enumerate(runs):
        assert api.wait_for_end(run["result"][0])["result"] == number


def test_async_task_is_cancelled_at_its_soft_time_limit(api: Api, enqueue: Enqueue) -> None:
    run = api.wait_for_end(enqueue(core_async_slow.enqueue()))
    assert (run["state"], run["error"]) == (
        "FAILURE",
        "billiard.exceptions.SoftTimeLimitExceeded: SoftTimeLimitExceeded()",
    )
    assert api.wait_for_end(enqueue(core_async.enqueue(x=1)))["state"] == "SUCCESS"


def test_running_task_is_revoked(api: Api, enqueue: Enqueue) -> None:
    ids = [enqueue(core_sleep.enqueue()) for _ in range(2)]  # in all pool processes
    for task_id in ids:
        api.wait_for(task_id, lambda run: run["state"] == "STARTED")
    for task_id in ids:
        response = api.http.delete(f"/tasks/{task_id}")
        assert (response.status_code, response.json()["state"]) == (200, "REVOKED")
        assert api.http.delete(f"/tasks/{task_id}").status_code == 409
    assert api.wait_for_end(enqueue(core_add.enqueue(x=1, y=1)))["state"] == "SUCCESS"
    assert {api.run(task_id)["state"] for task_id in ids} == {"REVOKED"}


def test_unknown_run_is_not_found(api: Api) -> None:
    for method in ("GET", "DELETE"):
        response = api.http.request(method, "/tasks/no-such-id")
        assert (response.status_code, response.json()["detail"]) == (404, "task not found: no-such-id")


def test_history_filters_and_pages(api: Api, enqueue: Enqueue) -> None:
    began = datetime.now(UTC).isoformat()
    added = [enqueue(core_add.enqueue(x=number, y=0)) for number in range(7)]
    failed = enqueue(core_fail.enqueue())
    for task_id in (*added, failed):
        api.wait_for_end(task_id)
    assert [run["task_id"] for run in api.history(name="core_add", since=began, limit=3)] == added[::-1]
    assert failed in [run["task_id"] for run in api.history(state="FAILURE", since=began)]
    worker = api.run(failed)["worker"]
    assert failed in [run["task_id"] for run in api.history(worker=worker, since=began)]
    assert api.history(worker="nobody@nowhere") == []


def test_all_dependencies_are_ready(api: Api) -> None:
    assert api.http.get("/health/live").json() == {"status": "ok"}
    ready = api.http.get("/health/ready").json()
    assert (ready["status"], ready["database"], ready["broker"]) == ("ok", "ok", "ok")
    assert set(ready["queues"].values()) == {"ok"}


def test_delayed_run_starts_after_its_delay(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_add.options(delay=5).enqueue(x=1, y=1))
    waiting = api.run(task_id)
    assert (waiting["state"], waiting["attempts"]) == ("PENDING", 0)
    run = api.wait_for_end(task_id)
    accepted, due, started = (
        datetime.fromisoformat(each) for each in (waiting["accepted_at"], waiting["next_try_at"], run["started_at"])
    )
    assert (due - accepted).total_seconds() == 5
    assert 0 <= (started - due).total_seconds() < 30
    assert run["next_try_at"] is None


def test_request_with_a_delay_is_delayed(api: Api, session: Session) -> None:
    with TestClient(create_app(), "http://localhost:8060") as own:
        task_id = own.post("/tasks/core_add?x=1&y=1&delay=3600").json()["task_id"]
    run = api.run(task_id)
    waiting = datetime.fromisoformat(run["next_try_at"]) - datetime.fromisoformat(run["accepted_at"])
    assert (run["arguments"], waiting.total_seconds()) == ({"x": 1, "y": 1}, 3600)
    assert api.http.delete(f"/tasks/{task_id}").json()["attempts"] == 0


def test_task_sets_the_time_of_its_retry(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_later.enqueue(seconds=5))
    waiting = api.wait_for(task_id, lambda run: run["state"] == "RETRY")
    assert waiting["error"].endswith("RetryIn: not yet")
    run = api.wait_for_end(task_id)
    assert (run["state"], run["attempts"]) == ("FAILURE", 2)  # max_retries=1
    times = (run["earlier_attempts"][0]["ended_at"], waiting["next_try_at"], run["started_at"])
    failed, due, started = map(datetime.fromisoformat, times)
    assert (due - failed).total_seconds() == 5
    assert 0 <= (started - due).total_seconds() < 30


def test_run_with_a_priority_starts_before_those_that_wait(api: Api, session: Session) -> None:
    running = [session.execute(core_slow.enqueue(duration=100)).scalar_one() for _ in range(2)]  # in all pool processes
    session.commit()
    for each in running:
        api.wait_for(each, lambda run: run["state"] == "STARTED")
    waiting = [session.execute(core_add.enqueue(x=n, y=0)).scalar_one() for n in range(300)]
    session.commit()
    urgent = session.execute(core_add.options(priority=9).enqueue(x=1, y=1)).scalar_one()
    session.commit()
    deadline = time.monotonic() + 60
    while session.scalar(select(history.runs.c.published_at).where(history.runs.c.id == urgent)) is None:
        assert time.monotonic() < deadline
        session.rollback()
        time.sleep(0.1)
    for each in running:
        assert api.http.delete(f"/tasks/{each}").status_code == 200
    for each in (urgent, *waiting):
        api.wait_for_end(each)
    runs = history.runs.c
    [(owner, started)] = session.execute(select(runs.owner, runs.started_at).where(runs.id == urgent))
    by_same_process = (runs.owner == owner) & (runs.started_at < started)
    assert session.scalar(history.count(runs.id.in_(waiting), by_same_process)) in {0, 1}
