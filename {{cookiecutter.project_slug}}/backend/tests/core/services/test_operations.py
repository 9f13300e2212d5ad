"""Retry and revocation by an operator."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from app.core.api import operations
from app.core.tasks import history
from app.core.tasks.history import KEPT_ATTEMPTS, OutboxAction, State, runs
from app.main import create_app
from tests.conftest import Api
from tests.core.tasks import QUEUE, core_add, core_fail, core_flaky, core_once, core_sleep, core_slow

pytestmark = pytest.mark.services

Enqueue = Callable[[Any], str]

MANY = 200


def test_failed_run_succeeds_when_it_is_retried(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_once.enqueue())
    failed = api.wait_for_end(task_id)
    response = api.http.post(f"/tasks/{task_id}/retry")
    assert (response.status_code, response.json()["state"]) == (202, "PENDING")
    run = api.wait_for_end(task_id)
    assert (run["state"], run["result"], run["error"], run["attempts"]) == ("SUCCESS", 2, None, 2)
    (earlier,) = run["earlier_attempts"]
    assert (earlier["number"], earlier["error"]) == (1, "ValueError: attempt 1")
    assert (earlier["worker"], earlier["traceback"]) == (failed["worker"], failed["traceback"])
    times = [datetime.fromisoformat(each) for each in (earlier["started_at"], earlier["ended_at"], run["started_at"])]
    assert times == sorted(times)


def test_failure_of_a_retried_success_is_recorded(api: Api, enqueue: Enqueue) -> None:
    """Its worker process has ended the same run as SUCCESS before."""
    task_id = enqueue(core_once.enqueue(failures=0))
    assert api.wait_for_end(task_id)["state"] == "SUCCESS"
    with TestClient(create_app(), "http://localhost:8060") as own:
        assert own.post(f"/tasks/{task_id}/retry", json={"arguments": {"failures": 9}}).status_code == 202
        run = api.wait_for_end(task_id)
    assert (run["state"], run["error"], run["result"]) == ("FAILURE", "ValueError: attempt 2", None)
    assert [(each["number"], each["error"]) for each in run["earlier_attempts"]] == [(1, None)]
    assert run["arguments"] == {"failures": 9}


def test_earlier_attempts_have_their_own_errors(api: Api, enqueue: Enqueue) -> None:
    run = api.wait_for_end(enqueue(core_flaky.enqueue(failures=2)))
    assert run["state"] == "SUCCESS"
    assert [each["error"] for each in run["earlier_attempts"]] == [f"ConnectionError: attempt {n}" for n in (1, 2)]


def test_newest_earlier_attempts_are_kept(api: Api, session: Session) -> None:
    task_id, number = str(uuid4()), KEPT_ATTEMPTS + 5
    earlier = {"worker": "w", "started_at": "2026-01-31T12:00:00Z", "ended_at": None, "error": None, "traceback": None}
    row = {"id": task_id, "name": "core_add", "queue": QUEUE, "arguments": {"x": 1, "y": 1}, "started_at": func.now()}
    row |= {"attempts": number, "earlier_attempts": [{"number": n, **earlier} for n in range(1, number)]}
    session.execute(insert(runs).values(state=State.PENDING, outbox_action="publish", **row))
    session.commit()
    run = api.wait_for_end(task_id)
    assert run["state"] == "SUCCESS"
    assert [each["number"] for each in run["earlier_attempts"]] == list(range(6, number + 1))
    assert run["earlier_attempts"][-1]["error"] == "the worker was lost or stopped"


def test_all_failures_of_a_filter_are_retried(api: Api, session: Session) -> None:
    since = datetime.now(UTC).isoformat()
    ids = [session.execute(core_once.enqueue()).scalar_one() for _ in range(MANY)]
    session.commit()
    for task_id in ids:
        assert api.wait_for_end(task_id, timeout=60)["state"] == "FAILURE"
    filters = {"state": "FAILURE", "name": "core_once", "since": since}
    response = api.http.post("/tasks/retry", params=filters)
    assert (response.status_code, response.json()) == (200, {"changed": MANY, "remaining": 0})
    for task_id in ids:
        run = api.wait_for_end(task_id, timeout=60)
        assert (run["state"], run["attempts"], len(run["earlier_attempts"])) == ("SUCCESS", 2, 1)


def test_call_changes_up_to_its_limit(api: Api, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "LIMIT", 2)
    since = datetime.now(UTC)
    ids = [session.execute(core_fail.enqueue()).scalar_one() for _ in range(3)]
    session.commit()
    for task_id in ids:
        api.wait_for_end(task_id)
    filters = {"state": "FAILURE", "name": "core_fail", "since": since.isoformat()}
    with TestClient(create_app(), "http://localhost:8060") as own:
        assert own.post("/tasks/retry", params=filters).json() == {"changed": 2, "remaining": 1}
    assert sorted(api.wait_for_end(task_id)["attempts"] for task_id in ids) == [1, 2, 2]


PLANS = ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize", "indexscan", "indexonlyscan", "bitmapscan")


def test_limit_holds_for_any_plan(session: Session) -> None:
    """A nested loop, the method that is left, would evaluate a subquery for each row."""
    for _ in range(9):  # not committed
        session.execute(
            insert(runs).values(id=str(uuid4()), name="core_limit", queue=QUEUE, arguments={}, state="FAILURE")
        )
    for method in PLANS:
        session.execute(text(f"SET LOCAL enable_{method} = off"))
    changed = update(runs).where(history.first(2, runs.c.name == "core_limit")).values(error="changed")
    assert len(session.execute(changed.returning(runs.c.id)).all()) == 2


def test_all_runs_of_a_filter_are_revoked(api: Api, session: Session, enqueue: Enqueue) -> None:
    since = datetime.now(UTC).isoformat()
    ids = [session.execute(core_sleep.enqueue()).scalar_one() for _ in range(5)]
    session.commit()
    api.wait_for(ids[0], lambda _: [api.run(each)["state"] for each in ids].count("STARTED") == 2)
    with session.begin():  # as a worker does that records the progress of the run
        session.execute(select(runs.c.id).where(runs.c.id == ids[4]).with_for_update())
        response = api.http.post("/tasks/revoke", params={"name": "core_sleep", "since": since})
    assert response.json() == {"changed": 4, "remaining": 1}
    response = api.http.post("/tasks/revoke", params={"name": "core_sleep", "since": since})
    assert response.json() == {"changed": 1, "remaining": 0}
    assert {api.run(task_id)["state"] for task_id in ids} == {"REVOKED"}
    assert api.wait_for_end(enqueue(core_add.enqueue(x=1, y=1)))["state"] == "SUCCESS"  # a process is free again


def test_revocation_terminates_executing_runs_only(session: Session) -> None:
    ids = {state: str(uuid4()) for state in (State.PENDING, State.STARTED, State.RETRY)}
    for state, run_id in ids.items():  # not committed: no relay sees them
        session.execute(insert(runs).values(id=run_id, name="core_slow", queue=QUEUE, arguments={}, state=state))
    session.execute(history.revoke(runs.c.id.in_(ids.values())))
    actions = dict(session.execute(select(runs.c.id, runs.c.outbox_action).where(runs.c.id.in_(ids.values()))).all())
    session.rollback()
    expected = {State.PENDING: None, State.STARTED: OutboxAction.REVOKE, State.RETRY: None}
    assert {state: actions[run_id] for state, run_id in ids.items()} == expected


def test_unfinished_and_revoked_runs_are_not_retried(api: Api, enqueue: Enqueue) -> None:
    running = enqueue(core_slow.enqueue(duration=30))
    response = api.http.post(f"/tasks/{running}/retry")
    assert response.status_code == 409
    assert "has not ended" in response.json()["detail"]
    assert api.http.delete(f"/tasks/{running}").status_code == 200
    response = api.http.post(f"/tasks/{running}/retry")
    assert response.status_code == 409
    assert "was revoked" in response.json()["detail"]
    assert api.run(running)["state"] == "REVOKED"
    assert api.http.post(f"/tasks/{uuid4()}/retry").status_code == 404


def test_changed_arguments_are_validated(api: Api, enqueue: Enqueue) -> None:
    task_id = enqueue(core_add.enqueue(x=1, y=1))
    ended = api.wait_for_end(task_id)
    with TestClient(create_app(), "http://localhost:8060") as own:
        for arguments, named in (({"x": "one"}, "x: "), ({"z": 1}, "z: "), ({"x": None}, "x: ")):
            response = own.post(f"/tasks/{task_id}/retry", json={"arguments": arguments})
            assert (response.status_code, response.json()["detail"][:3]) == (422, named)
        for body in ({"content": b'{"arguments": {"x": 2}}'}, {"json": {"x": 2}}):  # no JSON by its type; no arguments
            assert own.post(f"/tasks/{task_id}/retry", **body).status_code == 422
    assert api.run(task_id) == ended
    assert api.http.post(f"/tasks/{task_id}/retry", json={"arguments": {"x": 2}}).status_code == 409  # unknown there
