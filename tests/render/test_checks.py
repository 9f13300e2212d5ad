"""The checks of a rendered project, once for each distinct input."""

import re
import sys
import tokenize
import tomllib
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


def test_imported_packages_are_declared(distinct: Distinct) -> None:
    for project in distinct(is_python_or_settings):
        settings = tomllib.loads(project.files[lock.SETTINGS])
        declared = {re.split(r"[^\w-]", each)[0] for each in settings["project"]["dependencies"]}
        declared |= {extra for each in settings["project"]["dependencies"] for extra in re.findall(r"\[(\w+)\]", each)}
        sources = [
            text
            for path, text in project.files.items()
            if path.startswith("backend/") and path.endswith(".py") and "/tests/" not in path
        ]
        imported = {name for text in sources for name in re.findall(r"^ *(?:from|import) (\w+)", text, re.M)}
        external = imported - sys.stdlib_module_names - {"app", "pydantic_core"}  # the latter is pydantic's own
        assert external
        assert {name.replace("_", "-") for name in external} <= declared


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


def code_lines(path: Path) -> set[int]:
    """Return the numbers of the lines with code: neither blank, nor only a comment or a docstring."""
    found: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NEWLINE:
                if [each.type for each in statement] != [tokenize.STRING]:
                    found.update(line for each in statement for line in range(each.start[0], each.end[0] + 1))
                statement = []
            elif token.type not in {tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}:
                statement.append(token)
    return found


def test_core_stays_small() -> None:
    """Owners of a project read it."""
    core = TEMPLATE / PROJECT / "backend" / "app" / "core"
    lines = sum(len(code_lines(path)) for path in core.rglob("*.py"))
    assert 1_000 < lines < 3_500
