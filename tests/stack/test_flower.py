"""Flower itself: who may open it, its broker page, what it remembers."""

import httpx2
import pytest

from tests.stack.conftest import wait_until


def test_flower_asks_for_a_password_just_when_it_should(stack):
    asked = 401 if stack.variant["flower_auth"] == "basic" else 200
    for path in ("/", "/tasks", "/broker", "/api/tasks?limit=1", "/api/workers"):
        assert httpx2.get(f"http://localhost:5555{path}").status_code == asked, path
        assert stack.flower.get(path).status_code == 200, path


def test_a_wrong_password_is_refused(stack):
    if stack.variant["flower_auth"] == "none":
        assert stack.flower.auth is None
        return
    for user, password in (("admin", "wrong"), ("", ""), ("admin", "")):
        answer = httpx2.get("http://localhost:5555/api/workers", auth=(user, password))
        assert answer.status_code == 401


def test_the_broker_page_has_the_queue(stack):
    page = stack.flower.get("/broker").text
    assert '<tr id="celery">' in page
    lengths = stack.flower.get("/api/queues/length").json()["active_queues"]
    assert "celery" in [queue["name"] for queue in lengths]


def test_flower_sees_the_worker_and_controls_it(stack):
    workers = stack.flower.get("/api/workers", params={"refresh": 1}).json()
    (name, worker), *others = workers.items()
    assert others == []
    assert {"add", "fail", "flaky", "slow"} <= set(worker["registered"])
    processes = len(worker["stats"]["pool"]["processes"])
    for path, change in (("grow", 1), ("shrink", 0)):
        assert stack.flower.post(f"/api/worker/pool/{path}/{name}", params={"n": 1}).status_code == 200

        def resized(wanted=processes + change):
            seen = stack.flower.get("/api/workers", params={"refresh": 1, "workername": name}).json()
            return len(seen[name]["stats"]["pool"]["processes"]) == wanted

        wait_until(resized, 20, f"the pool to have {processes + change} processes")


def test_flower_remembers_just_when_it_should(stack):
    task_id = stack.accept("add", x=2, y=3)
    stack.in_flower(task_id, "SUCCESS")
    stack.compose("restart", "flower")
    stack.up()
    known = stack.flower.get(f"/api/task/info/{task_id}").status_code
    assert known == (200 if stack.variant["flower_persistence"] else 404)
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "SUCCESS"


@pytest.mark.parametrize("origin", ["http://elsewhere.example"])
def test_a_foreign_page_presses_no_button_behind_a_password(stack, origin):
    if stack.variant["flower_auth"] == "none":
        assert "Flower does not refuse its calls" in stack.project.files["FLOWER.md"]
        return
    answer = stack.flower.post("/api/worker/shutdown/worker@nobody", headers={"Origin": origin})
    assert answer.status_code == 403
