"""Jinja filters that validate answers and quote them for the language of a file."""

import json
import re
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from cookiecutter.exceptions import FailedHookException
from cookiecutter.utils import simple_filter

TEMPLATE = Path(__file__).resolve().parent
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
FREE_TEXT = ("project_name", "description", "author_name")
LONGEST = 40
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
ONE_LINE = "use one line with at least one visible character"
TOO_OLD = "cookiecutter {} is too old: use 2.7 or newer, for example with uvx cookiecutter"


class Rule(NamedTuple):
    """A condition on an answer, and the fix for a value that violates it."""

    answer: str
    holds: Callable[[str], object]
    fix: str


def is_one_line(text: str) -> bool:
    """Return whether `text` has a visible character, and no line break or control character."""
    kinds = {unicodedata.category(character) for character in text}
    return bool(kinds - {"Cf", "Zs"}) and not kinds & {"Cc", "Cs", "Zl", "Zp"}


RULES = [
    Rule("project_name", is_one_line, ONE_LINE),
    Rule(
        "project_slug",
        SLUG.fullmatch,
        "use lowercase letters, digits and single dashes, starting with a letter, for example my-service",
    ),
    Rule("project_slug", lambda slug: len(slug) <= LONGEST, f"use at most {LONGEST} characters"),
    Rule("description", is_one_line, ONE_LINE),
    Rule("author_name", is_one_line, ONE_LINE),
    # cookiecutter itself validates choices, except those of a replay
    *(
        Rule(name, values.__contains__, f"use one of {', '.join(values)}")
        for name, values in QUESTIONS.items()
        if isinstance(values, list) and name[0] != "_"
    ),
]


def violation(answer: str, value: str, fix: str) -> str:
    """Return the error line for an answer. A long value is shortened."""
    shown = json.dumps(value if len(value) <= 200 else value[:200] + "…", ensure_ascii=False)
    return f"{answer}: {shown} is invalid: {fix}"


def list_violations(answers: dict[str, str]) -> list[str]:
    """Return an error line for each violated rule."""
    found = version("cookiecutter")
    if [int(part) for part in found.split(".")[:2]] < [2, 7]:
        return [TOO_OLD.format(found)]
    violated = [rule for rule in RULES if not rule.holds(answers[rule.answer])]
    return [violation(rule.answer, answers[rule.answer], rule.fix) for rule in violated]


@simple_filter
def validated(answers: dict[str, str]) -> str:
    """Return an empty string if every answer is valid.

    Raises:
        FailedHookException: with the violations. Cookiecutter then prints nothing else, exits 1 and creates no file.
    """
    if lines := list_violations(answers):
        raise FailedHookException("\n".join(lines))
    return ""


@simple_filter
def violations(answers: dict[str, str]) -> list[str]:
    """Return the violations to the hook: the answers of a replay do not pass through `validated`."""
    return list_violations(answers)


@simple_filter
def evaluated_text(given: dict[str, str]) -> list[str]:
    """Return violations for text with Jinja, which cookiecutter evaluates in command lines and configuration files."""
    fix = "cookiecutter would evaluate the Jinja in it; enter it at the prompt, or remove {{, {% and {#"
    texts = {name: given[name] for name in FREE_TEXT if name in given}
    return [violation(name, text, fix) for name, text in texts.items() if re.search(r"\{[{%#]", text)]


@simple_filter
def folders(_slug: str) -> list[str]:
    """Return every folder of the rendered project, subfolders first."""
    root = TEMPLATE / "{{cookiecutter.project_slug}}"
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()]
    return sorted(found, reverse=True)


@simple_filter
def quote(text: str) -> str:
    """Return a double-quoted literal that TOML, YAML and JSON read back as `text`."""
    return json.dumps(text, ensure_ascii=False)


@simple_filter
def markdown(text: str) -> str:
    """Return Markdown for one paragraph or heading that displays `text`, with markup escaped."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", text.strip())
    escaped = re.sub(r"^[-+=]", r"\\\g<0>", escaped)  # a list, a rule or the underline of a heading
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)  # a numbered list
