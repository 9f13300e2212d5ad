"""What all tests of the template share: options, and the rendering of variants."""

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.project import Project
from tests.variants import COVERING, STRUCTURE, TEMPLATE, Variant, product


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the stack tests."""
    parser.addoption("--write-report", action="store_true", help="write docs/reliability.md anew")
    parser.addoption("--all-stacks", action="store_true", help="start every combination of the structural answers")
    parser.addoption(
        "--only", metavar="ID", help="start the one variant with this id, such as redis-none-forgetful-py314"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the stack tests their variants."""
    if "deployed" in metafunc.fixturenames:
        every = product(STRUCTURE)
        only = metafunc.config.getoption("only")
        faults = metafunc.module.__name__.startswith("tests.stack.faults.")
        some = [Variant.of(result_backend="redis")] if faults else getattr(metafunc.module, "VARIANTS", COVERING)
        chosen = every if metafunc.config.getoption("all_stacks") else some
        if only:
            chosen = [variant for variant in every if variant.id == only]
            if not chosen:
                raise pytest.UsageError(f"--only {only}: no such variant; there are {', '.join(v.id for v in every)}")
        tasks = "faults/effect.py" if faults else ""
        params = [pytest.param((variant, tasks), id=variant.id) for variant in chosen]
        metafunc.parametrize("deployed", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def render(cookies_session) -> Callable[..., Project]:
    """Render a variant anew, with other answers than its own where they are given."""

    def rendered(variant: Variant, **answers: str) -> Project:
        result = cookies_session.bake(extra_context={**dict(variant.answers), **answers}, template=str(TEMPLATE))
        assert result.exception is None, result.exception
        return Project(result.project_path, variant)

    return rendered


def no_engine() -> str:
    """Why there is no Docker engine to start containers with; empty when there is one."""
    try:
        asked = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
    except FileNotFoundError:
        return "docker is not installed"
    return "" if asked.returncode == 0 else f"no Docker engine answers: {asked.stderr.strip().splitlines()[-1]}"


def pytest_configure(config: pytest.Config) -> None:
    """Ask for the engine once."""
    config.stash[MISSING] = no_engine()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs containers where there is no engine, but not where a pipeline relies on the result."""
    missing = item.config.stash[MISSING]
    if missing and "deployed" in item.fixturenames:
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the last line say what was not tested."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report for report in reporter.stats.get("skipped", []) if "stack" in report.nodeid] if reporter else []
    if skipped:
        reason = config.stash[MISSING] or skipped[0].longrepr[2].removeprefix("Skipped: ")
        print(f"{len(skipped)} tests in containers were skipped: {reason}")


MISSING = pytest.StashKey[str]()
