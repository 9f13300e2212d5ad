"""Each distinct file parses and has no trace of the template."""

import configparser
import json
import re
import tomllib
from collections.abc import Callable

import yaml

from tests.render.conftest import Texts


class ComposeLoader(yaml.SafeLoader):
    """YAML with compose's tag for values that an overlay removes."""


ComposeLoader.add_constructor("!reset", lambda *_: [])

# ruff parses Python, in test_checks.py: rendered projects have a newer Python than the template
PARSERS: dict[str, Callable[[str], object]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".lock": tomllib.loads,
    ".yml": lambda text: yaml.load(text, ComposeLoader),
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
}

LEFT_OVER = re.compile(r"\{\{|\{%|%\}|\{#|#\}|cookiecutter\.")


def test_files_parse(texts: Texts) -> None:
    seen = set()
    for (path, text), variant in texts.items():
        for ending, parse in PARSERS.items():
            if path.endswith(ending):
                seen.add(ending)
                try:
                    parse(text)
                except Exception as error:
                    raise AssertionError(f"{variant}: {path} does not parse") from error
    assert seen == set(PARSERS)


def test_files_have_no_trace_of_the_template(texts: Texts) -> None:
    found = [f"{variant}: {path}: {line}" for (path, text), variant in texts.items() for line in left_over(path, text)]
    assert found == []


def left_over(path: str, text: str) -> list[str]:
    """Return lines that look like Jinja: not of Python's f-strings, nor of the templates of other programs."""
    if path.endswith((".py", ".mako", ".html")) or path.startswith("monitoring/"):
        return []
    return [line for line in text.splitlines() if LEFT_OVER.search(line)]


def test_traces_of_the_template_are_found() -> None:
    assert left_over("a.md", "{% if x %}\n{{ cookiecutter.x }}\nfine") == ["{% if x %}", "{{ cookiecutter.x }}"]


def test_conditions_leave_no_blanks(texts: Texts) -> None:
    found = [f"{variant}: {path}: {fault}" for (path, text), variant in texts.items() for fault in blanks(path, text)]
    assert found == []


def blanks(path: str, text: str) -> list[str]:
    """Return the blanks that a misplaced tag leaves behind. Empty packages have no text."""
    if not text:
        return []
    if path.endswith(".md"):
        text = re.sub(r"^```\w+$.*?^```$", "a block of code", text, flags=re.M | re.S)
    run = r"\n{4,}" if path.endswith((".py", ".mako")) else r"\n{3,}"
    faults = {
        "a run of blank lines": re.search(run, text),
        "blanks at the end of a line": not path.startswith("LICENSE") and re.search(r"[ \t]$", text, re.M),
        "blank lines at the start": not path.startswith("LICENSE") and text[0] == "\n",
        "no line break at the end, or several": not text.endswith("\n") or text.endswith("\n\n"),
    }
    return [fault for fault, found in faults.items() if found]


def test_blanks_are_found() -> None:
    assert blanks("a.yml", "\na: 1 \n\n\nb: 2\n\n") == [
        "a run of blank lines",
        "blanks at the end of a line",
        "blank lines at the start",
        "no line break at the end, or several",
    ]
