from datetime import UTC, datetime

from tests.services.conftest import Api


def test_a_task_goes_to_the_worker_and_back(api: Api) -> None:
    run = api.end_of(api.post("add", x=2, y=3))
    assert (run["state"], run["result"], run["arguments"]) == ("SUCCESS", 5, {"x": 2, "y": 3})
    assert run["attempts"] == 1
    assert run["worker"].startswith("worker@")
    times = [datetime.fromisoformat(run[time]) for time in ("accepted_at", "started_at", "ended_at")]
    assert times == sorted(times)


def test_waiting_gives_the_result_at_once(api: Api) -> None:
    answer = api.http.post("/tasks/add", params={"x": 2, "y": 3, "wait": 30})
    assert (answer.status_code, answer.json()["result"]) == (200, 5)


def test_waiting_too_short_gives_the_id(api: Api) -> None:
    answer = api.http.post("/tasks/slow", params={"duration": 2, "wait": 0.1})
    assert answer.status_code == 202
    assert api.end_of(answer.json()["task_id"])["result"] == 2


def test_a_slow_task_reports_its_progress(api: Api) -> None:
    task_id = api.post("slow", duration=3)
    run = api.wait_for(task_id, lambda run: (run["progress"] or {"done": 0})["done"] >= 1)
    assert run["state"] == "STARTED"
    assert run["progress"]["total"] == 3
    listed = api.http.get("/tasks/").json()["tasks"]
    assert task_id in [each["task_id"] for each in listed]
    assert api.end_of(task_id)["state"] == "SUCCESS"


def test_a_failure_keeps_error_traceback_and_arguments(api: Api) -> None:
    run = api.end_of(api.post("fail", reason="on purpose"))
    assert (run["state"], run["error"], run["attempts"]) == ("FAILURE", "ValueError: on purpose", 1)
    assert "tasks/fail.py" in run["traceback"]
    assert run["arguments"] == {"reason": "on purpose"}


def test_a_flaky_task_succeeds_after_retries(api: Api) -> None:
    task_id = api.post("flaky", failures=2)
    run = api.end_of(task_id)
    assert (run["state"], run["attempts"], run["error"]) == ("SUCCESS", 3, None)


def test_retries_come_to_an_end(api: Api) -> None:
    run = api.end_of(api.post("flaky", failures=10), timeout=60)
    assert (run["state"], run["attempts"]) == ("FAILURE", 4)
    assert "ConnectionError" in run["error"]


def test_a_running_task_is_revoked(api: Api) -> None:
    task_id = api.post("slow", duration=60)
    api.wait_for(task_id, lambda run: run["state"] == "STARTED")
    answer = api.http.delete(f"/tasks/{task_id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "REVOKED")
    assert api.http.delete(f"/tasks/{task_id}").status_code == 409
    assert api.run(task_id)["state"] == "REVOKED"


def test_an_unknown_task_is_not_found(api: Api) -> None:
    for method in ("GET", "DELETE"):
        answer = api.http.request(method, "/tasks/no-such-id")
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no task no-such-id")


def test_what_is_refused_leaves_no_row(api: Api) -> None:
    began = datetime.now(UTC).isoformat()
    assert api.http.post("/tasks/slow", params={"duration": "long"}).status_code == 422
    assert api.history(name="slow", since=began) == []


def test_the_history_filters_and_pages(api: Api) -> None:
    began = datetime.now(UTC).isoformat()
    added = [api.post("add", x=number, y=0) for number in range(7)]
    failed = api.post("fail")
    for task_id in (*added, failed):
        api.end_of(task_id)
    assert [run["task_id"] for run in api.history(name="add", since=began, limit=3)] == added[::-1]
    assert [run["task_id"] for run in api.history(state="FAILURE", since=began)] == [failed]
    worker = api.run(failed)["worker"]
    assert failed in [run["task_id"] for run in api.history(worker=worker, since=began)]
    assert api.history(worker="nobody@nowhere") == []


def test_every_dependency_is_ready(api: Api) -> None:
    assert api.http.get("/health/live").json() == {"status": "ok"}
    assert api.http.get("/health/ready").json() == {"status": "ok", "database": "ok", "broker": "ok"}
