"""The operator's tasks in FLOWER.md, performed in a browser."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.stack import browser
from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.variants import Variant

VARIANTS = [Variant.of()]
pytestmark = pytest.mark.usefixtures("installed_browser")


def number(page: Page, metric: str) -> float:
    """Return the value of a metric on the dashboard."""
    found = re.match(r"[\d.,]+", page.locator(f"#metric-{metric}").inner_text())
    return float(found[0].replace(",", "")) if found else 0.0


def test_failed_task_is_shown_with_its_traceback(stack: Stack, screenshots: Any) -> None:
    task_id = stack.enqueue("fail", reason="no such customer")
    stack.wait_for_flower(task_id, "FAILURE")
    with browser.open_page(stack) as page:
        page.goto("/tasks")
        page.get_by_role("button", name="Failed").click()
        row = page.locator("#tasks-table tbody tr", has_text=task_id)
        row.wait_for()
        states = page.locator("#tasks-table tbody td:nth-child(3)")
        wait_until(lambda: set(states.all_inner_texts()) == {"FAILURE"}, 20, "only failed tasks")
        browser.save_screenshot(page, screenshots, "failed-tasks")
        row.locator(f'a[href$="/task/{task_id}"]').click()
        page.locator("#task-page").wait_for()
        text = page.locator("#task-page").inner_text()
        assert "{'reason': 'no such customer'}" in text
        assert "ValueError('no such customer')" in text
        assert "Traceback (most recent call last):" in text
        assert "raise ValueError(reason)" in text
        browser.save_screenshot(page, screenshots, "failed-task")


def test_dashboard_updates_while_tasks_run(stack: Stack) -> None:
    """The page is not reloaded."""
    with browser.open_page(stack) as page:
        page.goto("/workers")
        page.get_by_role("link", name="Dashboard").click()
        page.locator("#dashboard-dot.status-dot-live").wait_for()
        page.get_by_role("button", name="15 min").click()
        row = page.locator("#table-tasks tbody tr", has_text="slow").locator("td").nth(2)
        tasks = stack.flower.get("/api/dashboard", params={"minutes": 15}).json()["tasks"]
        before = tasks.get("slow", {}).get("succeeded", 0)
        drawn = page.locator("#chart-throughput path").first.get_attribute("d")
        ids = [stack.enqueue("slow", duration=0.2) for _ in range(20)]
        ids += [stack.enqueue("fail") for _ in range(5)]
        for task_id in ids:
            stack.wait_for_end(task_id)
        wait_until(lambda: row.count() and int(row.inner_text()) == before + 20, 30, "20 more on the dashboard")
        wait_until(lambda: number(page, "failure_rate") > 0, 30, "the failures to be counted")
        assert number(page, "throughput") > 0
        assert 0 < number(page, "success_rate") < 100
        assert page.locator("#metric-p95_runtime").inner_text() != "—"
        assert page.locator("#chart-throughput path").first.get_attribute("d") != drawn
        page.get_by_label("Task", exact=True).select_option("fail")
        wait_until(lambda: number(page, "success_rate") == 0, 30, "the statistics of the selected task")
        page.get_by_role("button", name="24 h").click()
        page.locator("#dashboard-dot.status-dot-live").wait_for()


def test_dashboard_follows_flowers_theme(stack: Stack, screenshots: Any) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        with browser.open_page(stack, color_scheme=scheme) as page:
            page.goto("/dashboard")
            page.locator("#dashboard-dot.status-dot-live").wait_for()
            style = "element => getComputedStyle(element).backgroundColor"
            card, chart = (page.locator(name).first.evaluate(style) for name in (".metric-card", ".dashboard-chart"))
            assert card == chart
            backgrounds.add(chart)
            browser.save_screenshot(page, screenshots, f"dashboard-{scheme}")
    assert len(backgrounds) == 2


def test_more_tasks_run_at_once_with_a_larger_pool_and_more_workers(stack: Stack, screenshots: Any) -> None:
    """Add processes on the worker's page, then two workers with a command."""
    name = stack.wait_for_worker()
    assert at_once(stack, tasks=6) == 2
    with browser.open_page(stack) as page:
        page.goto("/workers")
        page.get_by_role("link", name=f"Worker {name}").click()
        page.locator("#workername").wait_for()
        browser.save_screenshot(page, screenshots, "worker")
        page.locator("#pool-size").fill("2")
        page.locator("#worker-pool-grow").click()
        page.locator(".toast").wait_for()
        wait_until(lambda: processes(stack, name) > 2, 20, "the pool to grow")
    assert at_once(stack, tasks=12) > 2
    stack.flower.post(f"/api/worker/pool/shrink/{name}", params={"n": processes(stack, name) - 2})
    wait_until(lambda: processes(stack, name) == 2, 20, "the pool to shrink")
    stack.up("--scale", "worker=3")
    try:
        wait_until(lambda: len(stack.flower.get("/api/workers/stats").json()) == 3, 20, "Flower to list all three")
        assert at_once(stack, tasks=18) > 4
    finally:
        stack.up("--scale", "worker=1")


def test_worker_may_take_seconds_to_reply(stack: Stack) -> None:
    name = stack.wait_for_worker()
    with ThreadPoolExecutor() as pool:
        with faults.frozen("worker"):
            grown = pool.submit(stack.flower.post, f"/api/worker/pool/grow/{name}", params={"n": 1})
            faults.hold(1.5)
        assert grown.result().status_code == 200, grown.result().text
    assert stack.flower.post(f"/api/worker/pool/shrink/{name}", params={"n": 1}).status_code == 200


def processes(stack: Stack, name: str) -> int:
    """Return the number of pool processes of a worker."""
    return len(stack.flower.get("/api/workers/stats", params={"refresh": 1}).json()[name]["pool"]["processes"])


def at_once(stack: Stack, tasks: int) -> int:
    """Return how many tasks of a second were executed at the same time, from the recorded times."""
    ids = [stack.enqueue("slow", duration=1) for _ in range(tasks)]
    runs = [stack.wait_for_end(task_id, timeout=60) for task_id in ids]
    changes = [(run["started_at"], 1) for run in runs] + [(run["ended_at"], -1) for run in runs]
    ordered = sorted((datetime.fromisoformat(time), change) for time, change in changes)
    return max(itertools.accumulate(change for _, change in ordered))


def test_queue_is_shown_while_it_fills_and_drains(stack: Stack, screenshots: Any) -> None:
    def ready(page: Page) -> Any:
        page.reload()
        cells = page.locator("#celery td")
        return int(cells.nth(3).inner_text()) if cells.count() else None

    stack.compose("stop", "worker")
    ids = [stack.enqueue("add", x=1, y=1) for _ in range(30)]
    with browser.open_page(stack) as page:
        page.goto("/broker")
        wait_until(lambda: ready(page) == 30, 20, "30 ready messages")
        assert page.locator("#dead-letters td").first.inner_text() == "dead-letters"
        browser.save_screenshot(page, screenshots, "broker")
        page.goto("/dashboard")
        wait_until(lambda: number(page, "queued") == 30, 60, "30 to be queued on the dashboard")
        stack.up()
        for task_id in ids:
            stack.wait_for_end(task_id)
        page.goto("/broker")
        wait_until(lambda: ready(page) == 0, 20, "the queue to be empty")
        page.goto("/dashboard")
        wait_until(lambda: number(page, "queued") == 0, 60, "nothing to be queued on the dashboard")
        browser.save_screenshot(page, screenshots, "dashboard")
