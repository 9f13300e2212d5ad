"""Flower itself: who may open it, its broker page, what it remembers."""

import httpx2

from tests.stack.conftest import Stack, wait_until


def test_flower_asks_for_a_password_just_when_it_should(stack: Stack) -> None:
    asked = 401 if stack.variant["flower_auth"] == "basic" else 200
    for path in ("/", "/tasks", "/broker", "/dashboard", "/api/tasks?limit=1", "/api/workers", "/api/dashboard"):
        assert httpx2.get(f"http://localhost:5555{path}").status_code == asked, path
        assert stack.flower.get(path).status_code == 200, path


def test_a_wrong_password_is_refused(stack: Stack) -> None:
    if stack.variant["flower_auth"] == "none":
        assert stack.flower.auth is None
        return
    for user, password in (("admin", "wrong"), ("", ""), ("admin", ""), ("admin", "pässword")):
        answer = httpx2.get("http://localhost:5555/workers", auth=(user, password))
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True), password
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")


def test_the_broker_page_has_the_queue_and_the_dead_letters(stack: Stack) -> None:
    page = stack.flower.get("/broker").text
    lengths = stack.flower.get("/api/queues/length").json()["active_queues"]
    for queue in ("celery", "dead-letters"):
        assert f'<tr id="{queue}">' in page
        assert queue in [length["name"] for length in lengths]


def test_flower_sees_the_worker_and_controls_it(stack: Stack) -> None:
    (name,) = stack.flower.get("/api/workers/stats").json()
    worker = stack.flower.get("/api/workers", params={"refresh": 1}).json()[name]
    assert {"add", "fail", "flaky", "slow"} <= set(worker["registered"])
    processes = len(worker["stats"]["pool"]["processes"])
    for path, change in (("grow", 1), ("shrink", 0)):
        assert stack.flower.post(f"/api/worker/pool/{path}/{name}", params={"n": 1}).status_code == 200

        def resized(wanted: int = processes + change) -> bool:
            seen = stack.flower.get("/api/workers", params={"refresh": 1, "workername": name}).json()
            return len(seen[name]["stats"]["pool"]["processes"]) == wanted

        wait_until(resized, 20, f"the pool to have {processes + change} processes")


def test_flower_remembers_just_when_it_should(stack: Stack) -> None:
    task_id = stack.accept("add", x=2, y=3)
    stack.in_flower(task_id, "SUCCESS")
    stack.compose("restart", "flower")
    stack.up()
    known = stack.flower.get(f"/api/task/info/{task_id}").status_code
    assert known == (200 if stack.variant["flower_persistence"] else 404)
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "SUCCESS"


def test_cross_origin_requests_are_rejected_by_api_and_flower(stack: Stack) -> None:
    flower = (stack.flower, "localhost:5555", "/api/worker/shutdown/worker@nobody", 404)
    api = (stack.api, "localhost:8060", "/tasks/add?x=1&y=1", 202)
    for client, host, path, accepted in (flower, api):
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
            {"Origin": "http://localhost:3000"},
            {"Origin": "http://elsewhere.example"},
            {"Origin": "null"},
        ):
            assert client.post(path, headers=headers).status_code == 403, (host, headers)
        own = {"Origin": f"http://{host}"}
        for headers in ({}, own, own | {"Sec-Fetch-Site": "same-origin"}):
            assert client.post(path, headers=headers).status_code == accepted, (host, headers)


def test_rebound_host_is_rejected_by_api_and_flower(stack: Stack) -> None:
    flower = (stack.flower, 5555, "/tasks", "/api/worker/shutdown/worker@nobody")
    api = (stack.api, 8060, "/tasks/", "/tasks/add?x=1&y=1")
    for client, port, read, write in (flower, api):
        host = f"elsewhere.example:{port}"
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for answer in (client.get(read, headers={"Host": host}), client.post(write, headers=headers)):
            assert answer.status_code == 400
            assert "host not allowed (add it to ALLOWED_HOSTS)" in answer.text


def test_flower_sends_no_cors_headers(stack: Stack) -> None:
    answer = stack.flower.get("/api/workers", headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 200
    assert [name for name in answer.headers if name.startswith("access-control-")] == []


def test_metrics_are_for_containers_beside_it(stack: Stack) -> None:
    for client in (httpx2, stack.flower):
        address = "http://localhost:5555/metrics" if client is httpx2 else "/metrics"
        assert client.get(address).status_code in {401, 404}
    stack.in_flower(stack.accept("add", x=1, y=1), "SUCCESS")
    code = "import urllib.request as r; print(r.urlopen('http://flower:5556/metrics').read().decode())"
    assert 'type="task-succeeded"' in stack.compose("exec", "-T", "backend", "python", "-c", code)


def test_a_run_is_pending_until_a_worker_has_it(stack: Stack) -> None:
    """And none is missed that ran while Flower and the worker were starting."""
    stack.compose("stop", "worker")
    first = stack.accept("add", x=1, y=1)
    seen = stack.in_flower(first, "PENDING")
    assert (seen["name"], seen["kwargs"]) == ("add", "{'x': 1.0, 'y': 1.0}")
    stack.compose("stop", "flower")
    others = [stack.accept("add", x=1, y=1) for _ in range(10)]
    stack.up()
    for task_id in others:
        stack.in_flower(task_id, "SUCCESS")


def test_what_is_not_there_is_said_without_a_traceback(stack: Stack) -> None:
    assert stack.flower.get("/worker/worker@nobody").status_code == 404
    assert stack.flower.get("/task/nonesuch").status_code == 404
    assert stack.flower.post("/api/worker/pool/grow/worker@nobody", params={"n": 1}).status_code == 404
    (name,) = stack.flower.get("/api/workers/stats").json()
    refused = stack.flower.post(f"/api/worker/pool/autoscale/{name}", params={"min": 1, "max": 2})
    assert (refused.status_code, "Autoscale" in refused.text) == (403, True), refused.text
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")
