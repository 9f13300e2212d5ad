"""The dashboard's figures, and the statistics of workers."""

import re
from typing import Any

import pytest

from tests.stack.conftest import Stack, wait_until


def figures(stack: Stack, **params: Any) -> Any:
    answer = stack.flower.get("/api/dashboard", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_figures_follow_what_runs(stack: Stack) -> None:
    before = figures(stack, minutes=60)["tasks"]

    def more(task: str, figure: str) -> Any:
        now = figures(stack, minutes=60)["tasks"]
        return now.get(task, {}).get(figure, 0) - before.get(task, {}).get(figure, 0)

    ids = [stack.accept("add", x=1, y=1) for _ in range(8)] + [stack.accept("fail") for _ in range(2)]
    ids.append(stack.accept("flaky", failures=1))
    for task_id in ids:
        stack.end_of(task_id)
    wait_until(lambda: more("flaky", "succeeded") == 1, 20, "the figures to be drawn")
    assert (more("add", "succeeded"), more("fail", "failed"), more("flaky", "retried")) == (8, 2, 1)
    report = figures(stack)
    (worker,) = report["workers"]
    assert report["workers"][worker]["succeeded"] == report["total"]["succeeded"] > 8
    assert report["total"]["success_rate"] + report["total"]["failure_rate"] == pytest.approx(1)
    assert 0 < report["total"]["average_runtime"] <= report["total"]["p95_runtime"] * 1.05
    assert sum(report["series"]["succeeded"]) == report["total"]["succeeded"]
    assert figures(stack, task="fail")["total"]["success_rate"] == 0
    assert figures(stack, worker=worker, minutes=1440)["minutes"] == 1440


def test_what_is_at_work_is_counted(stack: Stack) -> None:
    ids = [stack.accept("slow", duration=12) for _ in range(2)]
    wait_until(lambda: figures(stack)["tasks"].get("slow", {}).get("active") == 2, 20, "two to be active")
    assert figures(stack)["total"]["active"] == 2
    wait_until(lambda: 2 in figures(stack)["series"]["active"], 20, "two to be drawn as active")
    for task_id in ids:
        stack.end_of(task_id)
    wait_until(lambda: figures(stack)["total"]["active"] == 0, 20, "none to be active")


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
def test_bad_parameters_are_refused_with_the_reason(
    stack: Stack, params: dict[str, Any], status: int, reason: str
) -> None:
    answer = stack.flower.get("/api/dashboard", params=params)
    assert (answer.status_code, reason in answer.text) == (status, True), answer.text


def test_workers_and_their_statistics(stack: Stack) -> None:
    stats = stack.flower.get("/api/workers/stats").json()
    online = stack.flower.get("/api/workers", params={"status": 1}).json()
    assert set(stats) == {name for name, alive in online.items() if alive}
    (worker,) = stats.values()
    assert worker["pool"]["max-concurrency"] == 2
    assert stack.flower.get("/api/workers/stats", params={"refresh": "x"}).status_code == 400


def test_every_page_has_a_link_to_the_dashboard(stack: Stack) -> None:
    for page in ("/workers", "/tasks", "/broker", "/dashboard"):
        assert 'href="/dashboard"' in stack.flower.get(page).text, page
    answer = stack.flower.get("/monitor")
    assert (answer.status_code, answer.headers["location"]) == (301, "/dashboard")


def test_the_page_names_no_other_host(stack: Stack) -> None:
    text = "".join(stack.flower.get(path).text for path in ("/dashboard/dashboard.js", "/dashboard/dashboard.css"))
    assert set(re.findall(r"\w+://[\w.]+", text)) <= {"http://www.w3.org"}  # names, not addresses
