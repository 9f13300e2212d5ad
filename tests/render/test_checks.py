"""The checks of a rendered project, once for each distinct input."""

import sys
from pathlib import Path

from tests.render.conftest import Distinct
from tests.variants import PIECES, TEMPLATE
from tools import lock
from tools.pieces import PROJECT

BIN = Path(sys.executable).parent


def is_python_or_settings(path: str) -> bool:
    """Return whether ruff reads this file of a rendered project."""
    return path.endswith(".py") or path == lock.SETTINGS


def test_ruff_is_clean_in_rendered_projects(distinct: Distinct) -> None:
    for project in distinct(is_python_or_settings):
        project.run(str(BIN / "ruff"), "check", "--no-cache", folder="backend")
        project.run(str(BIN / "ruff"), "format", "--check", "--no-cache", folder="backend")


def test_lock_file_is_exact(distinct: Distinct) -> None:
    for project in distinct(lambda path: path in {lock.SETTINGS, lock.LOCK}):
        project.run("uv", "lock", "--check", "--python", ">=3.13", folder="backend")  # one file serves every Python


def test_lock_command_finds_every_lock_file() -> None:
    """Run the command of CONTRIBUTING.md without permission to change anything."""
    assert "uv run python -m tools.lock\n" in (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = list((TEMPLATE / PROJECT / "backend").glob("*uv.lock*"))
    assert {f"backend/{path.name}" for path in paths} == set(lock.lock_files(PIECES))
    before = {path: path.read_bytes() for path in paths}
    lock.main("--check")
    assert {path: path.read_bytes() for path in paths} == before


def test_hadolint_is_clean(distinct: Distinct) -> None:
    for project in distinct(lambda path: path == "backend/Dockerfile"):
        project.run(str(BIN / "hadolint"), "Dockerfile", folder="backend")
