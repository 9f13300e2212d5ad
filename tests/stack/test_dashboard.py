"""The dashboard's statistics, and those of workers."""

import re
from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.variants import BACKENDS

VARIANTS = BACKENDS


def dashboard(stack: Stack, **params: Any) -> Any:
    response = stack.flower.get("/api/dashboard", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_stats_count_finished_runs(stack: Stack) -> None:
    wait_until(lambda: stack.api.get("/tasks/").json()["tasks"] == [], 90, "earlier runs to end")
    wait_until(lambda: dashboard(stack)["total"]["active"] == 0, 20, "Flower to know that")
    before = dashboard(stack, minutes=60)["tasks"]

    def increase(task: str, metric: str) -> Any:
        now = dashboard(stack, minutes=60)["tasks"]
        return now.get(task, {}).get(metric, 0) - before.get(task, {}).get(metric, 0)

    ids = [stack.enqueue("add", x=1, y=1) for _ in range(8)] + [stack.enqueue("fail") for _ in range(2)]
    ids.append(stack.enqueue("flaky", failures=1))
    for task_id in ids:
        stack.wait_for_end(task_id)
    expected = {("add", "succeeded"): 8, ("fail", "failed"): 2, ("flaky", "retried"): 1, ("flaky", "succeeded"): 1}
    wait_until(lambda: {key: increase(*key) for key in expected} == expected, 60, "every end to be counted")
    report = dashboard(stack)
    (worker,) = report["workers"]
    assert report["workers"][worker]["succeeded"] == report["total"]["succeeded"] > 8
    assert report["total"]["success_rate"] + report["total"]["failure_rate"] == pytest.approx(1)
    assert 0 < report["total"]["average_runtime"] <= report["total"]["p95_runtime"] * 1.05
    assert sum(report["series"]["succeeded"]) == report["total"]["succeeded"]
    assert dashboard(stack, task="fail")["total"]["success_rate"] == 0
    assert dashboard(stack, worker=worker, minutes=1440)["minutes"] == 1440


def test_stats_count_active_runs(stack: Stack) -> None:
    ids = [stack.enqueue("slow", duration=12) for _ in range(2)]
    wait_until(lambda: dashboard(stack)["tasks"].get("slow", {}).get("active") == 2, 20, "two active tasks")
    assert dashboard(stack)["total"]["active"] == 2
    wait_until(lambda: 2 in dashboard(stack)["series"]["active"], 20, "two active in the series")
    for task_id in ids:
        stack.wait_for_end(task_id)
    wait_until(lambda: dashboard(stack)["total"]["active"] == 0, 20, "no active task")


@pytest.mark.parametrize(
    ("params", "status", "reason"),
    [
        ({"minutes": "many"}, 400, "Invalid argument 'many'"),
        ({"minutes": 4}, 400, "minutes: 4 is invalid (use a whole number from 5 to 1440)"),
        ({"minutes": 1441}, 400, "from 5 to 1440"),
        ({"task": "nonesuch"}, 404, "task not found: nonesuch"),
        ({"worker": "worker@nobody"}, 404, "worker not found: worker@nobody"),
    ],
)
def test_invalid_parameter_is_rejected_with_the_reason(
    stack: Stack, params: dict[str, Any], status: int, reason: str
) -> None:
    response = stack.flower.get("/api/dashboard", params=params)
    assert (response.status_code, reason in response.text) == (status, True), response.text


def test_worker_stats_list_online_workers(stack: Stack) -> None:
    stats = stack.flower.get("/api/workers/stats").json()
    online = stack.flower.get("/api/workers", params={"status": 1}).json()
    assert set(stats) == {name for name, alive in online.items() if alive}
    (worker,) = stats.values()
    assert worker["pool"]["max-concurrency"] == 2
    assert stack.flower.get("/api/workers/stats", params={"refresh": "x"}).status_code == 400


def test_pages_link_to_the_dashboard(stack: Stack) -> None:
    for page in ("/workers", "/tasks", "/broker", "/dashboard"):
        assert 'href="/dashboard"' in stack.flower.get(page).text, page
    response = stack.flower.get("/monitor")
    assert (response.status_code, response.headers["location"]) == (301, "/dashboard")


def test_dashboard_loads_nothing_from_other_hosts(stack: Stack) -> None:
    text = "".join(stack.flower.get(path).text for path in ("/dashboard/dashboard.js", "/dashboard/dashboard.css"))
    assert set(re.findall(r"\w+://[\w.]+", text)) <= {"http://www.w3.org"}  # names, not addresses
