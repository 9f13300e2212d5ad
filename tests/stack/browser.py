"""Headless Chromium that is logged in to Flower."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Page, sync_playwright

if TYPE_CHECKING:
    from tests.stack.conftest import Stack

LOCALHOST_ONLY = "MAP * ~NOTFOUND, EXCLUDE localhost"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_executable() -> str:
    """Return the path of an installed browser, else of Playwright's own, else an empty string."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return str(own) if own.exists() else ""


@contextmanager
def open_page(stack: "Stack", **options: Any) -> Iterator[Page]:
    """Open a page in a browser that is logged in to Flower and can connect only to localhost.

    Raises:
        AssertionError: at the end, if a script of a page raised an error.
    """
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_executable(),
            args=["--no-sandbox", f"--host-resolver-rules={LOCALHOST_ONLY}"],
        )
        login = stack.flower_login
        if "auth" in login:
            options["http_credentials"] = dict(zip(("username", "password"), login["auth"], strict=True))
        options = {"base_url": "http://localhost:5555", "viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        if "cookies" in login:
            context.add_cookies([{"name": "user", "value": login["cookies"]["user"], "url": "http://localhost:5555"}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page
        finally:
            browser.close()
    assert errors == []


def save_screenshot(page: Page, folder: Path | None, name: str) -> None:
    """Save a screenshot of a page, if a folder is given."""
    if folder is not None:
        page.screenshot(path=folder / f"{name}.png")
