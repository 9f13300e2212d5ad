"""A person's browser: Chromium without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.stack.conftest import Stack

ONLY_HERE = "MAP * ~NOTFOUND, EXCLUDE localhost"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """The browser that is on the path, or else Playwright's own; empty when there is neither."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return str(own) if own.exists() else ""


@contextmanager
def opened(stack: Stack, **options: Any) -> Iterator[Page]:
    """A page of a browser that is logged in to Flower and can reach nothing but this machine.

    At the end it fails for every error that a script of the pages has made meanwhile.
    """
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(),
            args=["--no-sandbox", f"--host-resolver-rules={ONLY_HERE}"],
        )
        login = stack.flower_login
        if "auth" in login:
            options["http_credentials"] = dict(zip(("username", "password"), login["auth"], strict=True))
        context = browser.new_context(
            base_url="http://localhost:5555", viewport={"width": 1280, "height": 900}, **options
        )
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


def keep(page: Page, folder: Path | None, name: str) -> None:
    """Take a picture for the documents, when they are written anew."""
    if folder is not None:
        page.screenshot(path=folder / f"{name}.png")
