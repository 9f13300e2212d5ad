"""Options of the tests, rendering of variants, and detection of a Docker engine."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.project import Project
from tests.variants import TEMPLATE, Variant
from tools.pieces import Value

Render = Callable[..., Project]
"""Renders a variant; other answers can be given."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the stack tests."""
    parser.addoption("--write-screenshots", action="store_true", help="write the screenshots in docs/flower")
    parser.addoption("--all-stacks", action="store_true", help="start every combination of the structural answers")
    parser.addoption(
        "--only", metavar="ID", help="start only the variant with this id, such as redis-none-forgetful-py314"
    )


@pytest.fixture(scope="session")
def render(cookies_session: Any) -> Render:
    """Return a function that renders a variant; other answers can be given."""

    def rendered(variant: Variant, **answers: Value) -> Project:
        result = cookies_session.bake(extra_context={**dict(variant.answers), **answers}, template=str(TEMPLATE))
        assert result.exception is None, result.exception
        return Project(result.project_path, variant)

    return rendered


def no_engine() -> str:
    """Return the reason if no Docker engine is available, else an empty string."""
    try:
        done = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
    except FileNotFoundError:
        return "docker is not installed"
    return "" if done.returncode == 0 else f"no Docker engine responds: {done.stderr.strip().splitlines()[-1]}"


def pytest_configure(config: pytest.Config) -> None:
    """Check for an engine once."""
    config.stash[MISSING] = no_engine()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need containers without an engine, or fail them in a pipeline."""
    missing = item.config.stash[MISSING]
    if missing and "deployed" in getattr(item, "fixturenames", ()):
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the number of skipped tests as the last line."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report for report in reporter.stats.get("skipped", []) if "stack" in report.nodeid] if reporter else []
    if skipped:
        reason = config.stash[MISSING] or skipped[0].longrepr[2].removeprefix("Skipped: ")
        print(f"{len(skipped)} tests in containers were skipped: {reason}")


MISSING = pytest.StashKey[str]()
