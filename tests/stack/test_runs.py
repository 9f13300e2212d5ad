"""Flower's pages of runs, schedules and queues, as an operator uses them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.stack import browser
from tests.stack.conftest import Stack, wait_until
from tests.variants import Variant

VARIANTS = [Variant.of()]
pytestmark = pytest.mark.usefixtures("installed_browser")
BROKEN = 200


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    with browser.open_page(stack) as opened:
        opened.on("dialog", lambda dialog: dialog.accept())
        yield opened


@pytest.fixture
def tasks(stack: Stack) -> Iterator[Path]:
    """Return the demo's tasks, which are restored after the test."""
    path = Path(stack.project.path) / "backend" / "app" / "features" / "demo" / "tasks.py"
    original = path.read_text()
    yield path
    path.write_text(original)
    stack.up("--build")


def states(page: Page) -> list[str]:
    """Return the states of the listed runs."""
    return page.locator("#table-runs tbody .badge").all_inner_texts()


def test_tasks_that_a_deploy_broke_are_retried_after_the_fix(
    stack: Stack, page: Page, tasks: Path, screenshots: Any
) -> None:
    reason = "order without customer"
    for _ in range(BROKEN):
        last = stack.enqueue("fail", reason=reason)
    stack.wait_for_end(last)
    page.goto("/dashboard")
    page.get_by_role("link", name="Failure rate").click()
    page.get_by_label("Argument").fill(f"reason={reason}")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("argument="))
    assert set(states(page)) == {"FAILURE"}
    browser.save_screenshot(page, screenshots, "runs")
    page.locator(f'#table-runs a[title="{last}"]').click()
    page.wait_for_url(f"**/runs/{last}")
    assert f"ValueError: {reason}" in page.locator("#main-content").inner_text()
    assert "raise ValueError(reason)" in page.locator("#main-content").inner_text()

    source = tasks.read_text()
    assert "raise ValueError(reason)" in source
    tasks.write_text(source.replace("raise ValueError(reason)", "assert reason"))
    stack.up("--build")

    page.go_back()
    page.get_by_role("link", name="Older").wait_for()
    page.get_by_role("button", name="Retry all runs that match").click()
    assert f"{BROKEN} runs changed" in page.get_by_role("status").first.inner_text()
    wait_until(lambda: len(succeeded(stack, reason)) == BROKEN, 60, "all runs to succeed")
    assert {run["attempts"] for run in succeeded(stack, reason)} == {2}
    page.goto(f"/runs/{last}")
    text = page.locator("#main-content").inner_text()
    assert "SUCCESS" in text
    assert "Attempt 1" in text
    assert f"ValueError: {reason}" in text
    browser.save_screenshot(page, screenshots, "run")


def succeeded(stack: Stack, reason: str) -> list[dict[str, object]]:
    """Return the runs with a reason that have succeeded."""
    return stack.history(state="SUCCESS", name="fail", argument=f"reason={reason}")


def test_run_of_a_customer_is_found_and_linked_with_flower(stack: Stack, page: Page) -> None:
    task_id = stack.enqueue("add", x=471100, y=1)
    other = stack.enqueue("add", x=471101, y=1)
    stack.wait_for_end(other)
    stack.wait_for_flower(task_id, "SUCCESS")
    page.goto("/runs")
    page.get_by_label("Argument").fill("x=471100")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("argument="))
    expect(page.locator("#table-runs tbody tr a")).to_have_text([task_id[:8]])
    page.locator("#table-runs tbody tr a").click()
    page.wait_for_url(f"**/runs/{task_id}")
    expect(page.locator("#main-content")).to_contain_text("471101")  # the result
    page.get_by_role("link", name="Events of this task in Flower").click()
    page.get_by_role("link", name="All attempts").click()
    page.wait_for_url(f"**/runs/{task_id}")
    page.get_by_label("Arguments to change").fill('{"y": 2}')
    page.get_by_role("button", name="Retry").click()
    wait_until(lambda: stack.api.get(f"/tasks/{task_id}").json()["result"] == 471102, 20, "the retry to succeed")
    page.goto(f"/runs/{task_id}")  # it was loaded before the end
    page.get_by_label("Arguments to change").fill('{"y": "two"}')
    page.get_by_role("button", name="Retry").click()
    assert "y:" in page.get_by_role("alert").inner_text()


def test_running_task_is_revoked(stack: Stack, page: Page) -> None:
    task_id = stack.enqueue("slow", duration=60)
    stack.wait_for_start(task_id)
    page.goto(f"/runs/{task_id}")
    assert "STARTED" in page.locator("#main-content").inner_text()
    page.get_by_role("button", name="Revoke").click()
    assert stack.wait_for_end(task_id)["state"] == "REVOKED"
    page.locator(".badge", has_text="REVOKED").wait_for()


def test_paused_queue_starts_nothing_until_it_is_resumed(stack: Stack, page: Page) -> None:
    page.goto("/queues")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    task_id = stack.enqueue("add", x=1, y=1)
    stack.compose("restart", "rabbitmq", "backend", "worker", "db")
    stack.up()
    page.goto("/queues")
    assert page.locator("#table-queues tbody td").nth(1).inner_text() == "1"
    assert stack.api.get(f"/tasks/{task_id}").json()["state"] == "PENDING"
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert stack.wait_for_end(task_id)["state"] == "SUCCESS"


def test_problems_are_shown_on_the_page(stack: Stack, page: Page) -> None:
    for path in ("/runs/retry", "/runs/history"):
        response = page.goto(path)
        assert response is not None
        assert response.status in {404, 405}, path
    page.goto("/runs/unknown")
    assert "task not found: unknown" in page.get_by_role("alert").inner_text()
    page.goto("/runs?argument=x")
    assert 'argument: "x" is invalid (use name=value)' in page.get_by_role("alert").inner_text()
    page.goto("/schedules")
    assert "No feature has a schedule." in page.locator("#table-schedules").inner_text()
    stack.compose("stop", "backend")
    try:
        page.goto("/runs")
        assert "the API is unavailable" in page.get_by_role("alert").inner_text()
    finally:
        stack.up()


def test_pages_require_the_login(stack: Stack) -> None:
    for path in ("/runs", "/runs/unknown", "/schedules", "/queues"):
        response = stack.flower.get(path, auth=("nobody", "wrong"))
        assert response.status_code == 401, path
    response = stack.flower.post("/queues/celery/pause", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert stack.api.get("/queues").json()[0]["paused_at"] is None
