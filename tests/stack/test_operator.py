"""The four tasks of an operator, as FLOWER.md tells them, in a browser."""

import os
import re
from datetime import datetime
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.stack import browser
from tests.stack.conftest import Stack, wait_until
from tests.variants import TEMPLATE, Variant

VARIANTS = [Variant.of()]


@pytest.fixture(autouse=True)
def a_browser() -> Any:
    """Skip where there is no browser, but not where a pipeline relies on the result."""
    missing = "no browser: install Chromium, or run `uv run playwright install chromium`"
    if not browser.executable():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Any:
    """Return the folder of the documents' screenshots, if they are to be written."""
    folder = TEMPLATE / "docs" / "flower"
    if not request.config.getoption("write_pictures"):
        return None
    folder.mkdir(exist_ok=True)
    return folder


def number(page: Page, figure: str) -> float:
    """A figure of the dashboard."""
    found = re.match(r"[\d.,]+", page.locator(f"#metric-{figure}").inner_text())
    return float(found[0].replace(",", "")) if found else 0.0


def test_debug_a_failed_task(stack: Stack, pictures: Any) -> None:
    task_id = stack.accept("fail", reason="no such customer")
    stack.in_flower(task_id, "FAILURE")
    with browser.opened(stack) as page:
        page.goto("/tasks")
        page.get_by_role("button", name="Failed").click()
        row = page.locator("#tasks-table tbody tr", has_text=task_id)
        row.wait_for()
        states = set(page.locator("#tasks-table tbody td:nth-child(3)").all_inner_texts())
        assert states == {"FAILURE"}
        browser.keep(page, pictures, "failed-tasks")
        row.locator(f'a[href$="/task/{task_id}"]').click()
        page.locator("#task-page").wait_for()
        text = page.locator("#task-page").inner_text()
        assert "{'reason': 'no such customer'}" in text
        assert "ValueError('no such customer')" in text
        assert "Traceback (most recent call last):" in text
        assert "raise ValueError(reason)" in text
        browser.keep(page, pictures, "failed-task")


def test_watch_performance(stack: Stack) -> None:
    """The dashboard moves by itself while tasks run."""
    with browser.opened(stack) as page:
        page.goto("/workers")
        page.get_by_role("link", name="Dashboard").click()
        page.locator("#dashboard-dot.status-dot-live").wait_for()
        page.get_by_role("button", name="15 min").click()
        row = page.locator("#table-tasks tbody tr", has_text="slow").locator("td").nth(2)
        tasks = stack.flower.get("/api/dashboard", params={"minutes": 15}).json()["tasks"]
        before = tasks.get("slow", {}).get("succeeded", 0)
        drawn = page.locator("#chart-throughput path").first.get_attribute("d")
        ids = [stack.accept("slow", duration=0.2) for _ in range(20)]
        ids += [stack.accept("fail") for _ in range(5)]
        for task_id in ids:
            stack.end_of(task_id)
        wait_until(lambda: row.count() and int(row.inner_text()) == before + 20, 30, "20 more on the dashboard")
        wait_until(lambda: number(page, "failure_rate") > 0, 10, "the failures to be seen")
        assert number(page, "throughput") > 0
        assert 0 < number(page, "success_rate") < 100
        assert page.locator("#metric-p95_runtime").inner_text() != "—"
        assert page.locator("#chart-throughput path").first.get_attribute("d") != drawn
        page.get_by_label("Task", exact=True).select_option("fail")
        wait_until(lambda: number(page, "success_rate") == 0, 10, "the one task's figures")
        page.get_by_role("button", name="24 h").click()
        page.locator("#dashboard-dot.status-dot-live").wait_for()


def test_the_dashboard_is_in_flowers_own_look(stack: Stack, pictures: Any) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        with browser.opened(stack, color_scheme=scheme) as page:
            page.goto("/dashboard")
            page.locator("#dashboard-dot.status-dot-live").wait_for()
            style = "element => getComputedStyle(element).backgroundColor"
            card, chart = (page.locator(name).first.evaluate(style) for name in (".metric-card", ".dashboard-chart"))
            assert card == chart
            backgrounds.add(chart)
            browser.keep(page, pictures, f"dashboard-{scheme}")
    assert len(backgrounds) == 2


def test_scale_workers(stack: Stack, pictures: Any) -> None:
    """A process more, by the worker's page; two workers more, by command; throughput follows."""
    (name,) = stack.flower.get("/api/workers/stats").json()
    alone = throughput(stack)
    with browser.opened(stack) as page:
        page.goto("/workers")
        page.get_by_role("link", name=f"Worker {name}").click()
        page.locator("#workername").wait_for()
        browser.keep(page, pictures, "worker")
        page.locator("#pool-size").fill("2")
        page.locator("#worker-pool-grow").click()
        page.locator(".toast").wait_for()
        wait_until(lambda: processes(stack, name) > 2, 20, "the pool to grow")
    assert throughput(stack) > 1.2 * alone
    stack.flower.post(f"/api/worker/pool/shrink/{name}", params={"n": processes(stack, name) - 2})
    stack.up("--scale", "worker=3")
    try:
        wait_until(lambda: len(stack.flower.get("/api/workers/stats").json()) == 3, 20, "Flower to know all three")
        assert throughput(stack) > 1.5 * alone
    finally:
        stack.up("--scale", "worker=1")


def processes(stack: Stack, name: str) -> int:
    return len(stack.flower.get("/api/workers/stats", params={"refresh": 1}).json()[name]["pool"]["processes"])


def throughput(stack: Stack) -> float:
    """How many tasks of half a second end in a second, by the times that the workers have noted."""
    runs = [stack.accept("slow", duration=0.5) for _ in range(24)]
    ends = sorted(stack.end_of(task_id, timeout=60)["ended_at"] for task_id in runs)
    first, last = (datetime.fromisoformat(end) for end in (ends[0], ends[-1]))
    return len(runs) / (last - first).total_seconds()


def test_see_a_queue_fill_and_drain(stack: Stack, pictures: Any) -> None:
    def ready(page: Page) -> Any:
        page.reload()
        return int(page.locator("#celery td").nth(3).inner_text())

    stack.compose("stop", "worker")
    ids = [stack.accept("add", x=1, y=1) for _ in range(30)]
    with browser.opened(stack) as page:
        page.goto("/broker")
        wait_until(lambda: ready(page) == 30, 20, "30 messages to wait")
        assert page.locator("#dead-letters td").first.inner_text() == "dead-letters"
        browser.keep(page, pictures, "broker")
        page.goto("/dashboard")
        wait_until(lambda: number(page, "queued") == 30, 20, "30 to be queued on the dashboard")
        stack.up()
        for task_id in ids:
            stack.end_of(task_id)
        page.goto("/broker")
        wait_until(lambda: ready(page) == 0, 20, "the queue to be empty")
        page.goto("/dashboard")
        wait_until(lambda: number(page, "queued") == 0, 20, "nothing to be queued on the dashboard")
        browser.keep(page, pictures, "dashboard")
