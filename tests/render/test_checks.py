"""The checks of a rendered project itself, each distinct input once."""

import sys
from pathlib import Path

from tests.variants import TEMPLATE
from tools import lock

BIN = Path(sys.executable).parent


def python_or_settings(path):
    return path.endswith(".py") or path == "backend/pyproject.toml"


def test_ruff_is_clean(distinct):
    for project in distinct(python_or_settings):
        project.run(str(BIN / "ruff"), "check", "--no-cache", folder="backend")
        project.run(str(BIN / "ruff"), "format", "--check", "--no-cache", folder="backend")


def test_the_lock_file_is_exact(distinct):
    for project in distinct(lambda path: path in {"backend/pyproject.toml", "backend/uv.lock"}):
        project.run("uv", "lock", "--check", folder="backend")


def test_the_command_that_locks_knows_every_lock_file():
    """As CONTRIBUTING.md has it, but without leave to change anything."""
    assert "uv run python -m tools.lock\n" in (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in lock.LOCKED.glob("*uv.lock*")}
    lock.main("--check")
    assert {path: path.read_bytes() for path in lock.LOCKED.glob("*uv.lock*")} == before


def test_hadolint_is_clean(distinct):
    for project in distinct(lambda path: path == "backend/Dockerfile"):
        project.run(str(BIN / "hadolint"), "Dockerfile", folder="backend")
