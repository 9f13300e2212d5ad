"""Names and line ends that every platform accepts, in the template and in rendered projects."""

import re
import subprocess

from tests.project import Project
from tests.variants import TEMPLATE

FORBIDDEN = re.compile(r'[<>:"|?*\\\\\x00-\x1f]|[ .]$')
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


def illegal(path: str) -> list[str]:
    """Return the parts of a path that Windows rejects."""
    return [part for part in path.split("/") if FORBIDDEN.search(part) or DEVICES.fullmatch(part)]


def test_names_are_legal_on_every_platform(projects: list[Project]) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TEMPLATE, check=True, capture_output=True, text=True)
    paths = set(filter(None, listed.stdout.split("\0"))).union(*(project.files for project in projects))
    assert len(paths) > 100
    assert {path: illegal(path) for path in paths if illegal(path)} == {}
    folded = [path.casefold() for path in projects[0].files]
    assert len(folded) == len(set(folded))
    assert max(map(len, paths)) < 150


def test_illegal_names_are_found() -> None:
    bad = ["a:b", "a/b?", "x|y", "end.", "end ", "aux", "com1.txt", 'a"b', "a\\b"]
    assert [path for path in bad if not illegal(path)] == []
    assert illegal("{{cookiecutter.project_slug}}/{% if cookiecutter.ci == 'github' %}ci.yml{% endif %}") == []


def test_lines_end_with_a_line_feed(projects: list[Project]) -> None:
    for project in projects:
        for path in project.files:
            assert b"\r" not in (project.path / path).read_bytes(), f"{project.variant.id}: {path}"
    assert (TEMPLATE / ".gitattributes").read_text() == "* text=auto eol=lf\n"
    assert projects[0].files[".gitattributes"] == "* text=auto eol=lf\n"


def test_hooks_keep_file_modes() -> None:
    for hook in (TEMPLATE / "hooks").glob("*.py"):
        assert "chmod" not in hook.read_text(encoding="utf-8"), hook.name
