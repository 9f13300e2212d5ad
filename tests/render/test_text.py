"""Each distinct file: it parses, and shows no trace of the template."""

import configparser
import json
import re
import tomllib

import yaml

# Python is younger there than here: ruff parses it, in test_checks.py
PARSERS = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".lock": tomllib.loads,
    ".yml": yaml.safe_load,
    ".yaml": yaml.safe_load,
    ".ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
}

LEFT_OVER = re.compile(r"\{\{|\{%|%\}|\{#|#\}|cookiecutter\.")


def test_every_file_parses(texts):
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


def test_nothing_of_the_template_is_left_over(texts):
    found = [f"{variant}: {path}: {line}" for (path, text), variant in texts.items() for line in left_over(path, text)]
    assert found == []


def left_over(path, text):
    """The lines that look like a template. Python has f-strings, Alembic and Flower have templates of their own."""
    if path.endswith((".py", ".mako", ".html")):
        return []
    return [line for line in text.splitlines() if LEFT_OVER.search(line)]


def test_left_overs_are_seen():
    assert left_over("a.md", "{% if x %}\n{{ cookiecutter.x }}\nfine") == ["{% if x %}", "{{ cookiecutter.x }}"]


def test_no_condition_leaves_blanks(texts):
    found = [f"{variant}: {path}: {fault}" for (path, text), variant in texts.items() for fault in blanks(path, text)]
    assert found == []


def blanks(path, text):
    """What a condition leaves behind when its tag stands wrong. Empty packages have no text at all."""
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


def test_blanks_are_seen():
    assert blanks("a.yml", "\na: 1 \n\n\nb: 2\n\n") == [
        "a run of blank lines",
        "blanks at the end of a line",
        "blank lines at the start",
        "no line break at the end, or several",
    ]
