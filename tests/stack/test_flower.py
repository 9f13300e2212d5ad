"""Flower: authentication, pages, control of workers, persistence and events."""

import httpx2

from tests.stack.conftest import Stack, wait_until
from tests.variants import COVERING

VARIANTS = list({(each["flower_auth"], each["flower_persistence"]): each for each in COVERING}.values())
"""One variant with each login and each kind of persistence."""


def test_flower_requires_a_password_when_auth_is_basic(stack: Stack) -> None:
    expected = 401 if stack.variant["flower_auth"] == "basic" else 200
    for path in ("/", "/tasks", "/broker", "/dashboard", "/api/tasks?limit=1", "/api/workers", "/api/dashboard"):
        assert httpx2.get(f"http://localhost:5555{path}").status_code == expected, path
        assert stack.flower.get(path).status_code == 200, path


def test_wrong_password_is_rejected(stack: Stack) -> None:
    if stack.variant["flower_auth"] == "none":
        assert stack.flower.auth is None
        return
    for user, password in (("admin", "wrong"), ("", ""), ("admin", ""), ("admin", "pässword")):
        response = httpx2.get("http://localhost:5555/workers", auth=(user, password))
        assert (response.status_code, "www-authenticate" in response.headers) == (401, True), password
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")


def test_broker_page_lists_queues_and_dead_letters(stack: Stack) -> None:
    page = stack.flower.get("/broker").text
    lengths = stack.flower.get("/api/queues/length").json()["active_queues"]
    for queue in ("celery", "dead-letters"):
        assert f'<tr id="{queue}">' in page
        assert queue in [length["name"] for length in lengths]


def test_flower_lists_the_worker_and_resizes_its_pool(stack: Stack) -> None:
    name = stack.wait_for_worker()
    worker = stack.flower.get("/api/workers", params={"refresh": 1}).json()[name]
    assert {"add", "fail", "flaky", "slow"} <= set(worker["registered"])
    processes = len(worker["stats"]["pool"]["processes"])
    for path, change in (("grow", 1), ("shrink", 0)):
        assert stack.flower.post(f"/api/worker/pool/{path}/{name}", params={"n": 1}).status_code == 200

        def is_resized(wanted: int = processes + change) -> bool:
            listed = stack.flower.get("/api/workers", params={"refresh": 1, "workername": name}).json()
            return len(listed[name]["stats"]["pool"]["processes"]) == wanted

        wait_until(is_resized, 20, f"the pool to have {processes + change} processes")


def test_history_survives_a_restart_when_persistence_is_on(stack: Stack) -> None:
    task_id = stack.enqueue("add", x=2, y=3)
    stack.wait_for_flower(task_id, "SUCCESS")
    stack.compose("restart", "flower")
    stack.up()
    status = stack.flower.get(f"/api/task/info/{task_id}").status_code
    assert status == (200 if stack.variant["flower_persistence"] else 404)
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
        for response in (client.get(read, headers={"Host": host}), client.post(write, headers=headers)):
            assert response.status_code == 400
            assert "host not allowed (add it to ALLOWED_HOSTS)" in response.text


def test_flower_sends_no_cors_headers(stack: Stack) -> None:
    response = stack.flower.get("/api/workers", headers={"Origin": "http://elsewhere.example"})
    assert response.status_code == 200
    assert [name for name in response.headers if name.startswith("access-control-")] == []


def test_metrics_are_available_only_to_other_containers(stack: Stack) -> None:
    for client in (httpx2, stack.flower):
        address = "http://localhost:5555/metrics" if client is httpx2 else "/metrics"
        assert client.get(address).status_code in {401, 404}
    stack.wait_for_flower(stack.enqueue("add", x=1, y=1), "SUCCESS")
    code = "import urllib.request as r; print(r.urlopen('http://flower:5556/metrics').read().decode())"
    assert 'type="task-succeeded"' in stack.compose("exec", "-T", "backend", "python", "-c", code)


def test_run_is_pending_in_flower_until_a_worker_receives_it(stack: Stack) -> None:
    """Runs that are executed while the worker starts are shown as well."""
    stack.compose("stop", "worker")
    first = stack.enqueue("add", x=1, y=1)
    seen = stack.wait_for_flower(first, "PENDING")
    assert (seen["name"], seen["kwargs"]) == ("add", "{'x': 1.0, 'y': 1.0}")
    stack.compose("stop", "flower")
    others = [stack.enqueue("add", x=1, y=1) for _ in range(10)]
    stack.up("flower")
    stack.up()
    for task_id in others:
        stack.wait_for_flower(task_id, "SUCCESS")


def test_invalid_operation_returns_an_error_without_a_traceback(stack: Stack) -> None:
    assert stack.flower.get("/worker/worker@nobody").status_code == 404
    assert stack.flower.get("/task/nonesuch").status_code == 404
    assert stack.flower.post("/api/worker/pool/grow/worker@nobody", params={"n": 1}).status_code == 404
    name = stack.wait_for_worker()
    response = stack.flower.post(f"/api/worker/pool/autoscale/{name}", params={"min": 1, "max": 2})
    assert (response.status_code, "Autoscale" in response.text) == (403, True), response.text
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")
