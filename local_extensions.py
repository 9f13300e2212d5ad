"""Jinja filters: they check the answers, and put them, which are any text, safely into files of other languages."""

import json
import re
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from cookiecutter.exceptions import FailedHookException
from cookiecutter.utils import simple_filter

QUESTIONS = json.loads((Path(__file__).resolve().parent / "cookiecutter.json").read_text(encoding="utf-8"))


class Rule(NamedTuple):
    answer: str
    holds: Callable[[str], object]
    text: str


def one_line(text: str) -> bool:
    kinds = {unicodedata.category(character) for character in text}
    return bool(kinds - {"Cf", "Zs"}) and not kinds & {"Cc", "Cs", "Zl", "Zp"}  # shows something; controls nothing


RULES = [
    Rule("project_name", one_line, "one line with at least one character that shows"),
    Rule(
        "project_slug",
        lambda slug: len(slug) <= 40 and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug),
        "at most 40 lowercase letters, digits and single dashes, starting with a letter, for example my-service",
    ),
    Rule("description", one_line, "one line with at least one character that shows"),
    Rule("author_name", one_line, "one line with at least one character that shows"),
]
# cookiecutter itself checks choices, but not those of a replay
RULES += [
    Rule(name, values.__contains__, f"one of {', '.join(values)}")
    for name, values in QUESTIONS.items()
    if isinstance(values, list) and name[0] != "_"
]


def refusal(name: str, value: str, rule: str) -> str:
    """The line that refuses an answer; a long one is cut."""
    shown = json.dumps(value if len(value) <= 200 else value[:200] + "…", ensure_ascii=False)
    return f"{name}: {shown} is refused: {rule}"


def refusals(answers: dict[str, str]) -> list[str]:
    """A line for each answer that breaks its rule."""
    found = version("cookiecutter")
    if [int(part) for part in found.split(".")[:2]] < [2, 7]:
        return [f"cookiecutter {found} is too old: 2.7 or newer is needed, for example by uvx cookiecutter"]
    broken = [rule for rule in RULES if not rule.holds(answers[rule.answer])]
    return [refusal(rule.answer, answers[rule.answer], rule.text) for rule in broken]


@simple_filter
def checked(answers: dict[str, str]) -> str:
    """Nothing, if every answer keeps its rule.

    Raises:
        FailedHookException: with the refusals. At this point cookiecutter prints them alone, exits 1 and makes nothing.
    """
    if lines := refusals(answers):
        raise FailedHookException("\n".join(lines))
    return ""


@simple_filter
def refused(answers: dict[str, str]) -> list[str]:
    """The refusals, for the hook: the answers of a replay are not `checked`."""
    return refusals(answers)


@simple_filter
def run_as_jinja(given: dict[str, str]) -> list[str]:
    """Refusals of text whose Jinja cookiecutter has run: it does so on the command line and in a configuration."""
    rule = "Jinja in it would be run; type it at cookiecutter's prompt, or leave out {{, {% and {#"
    free = [name for name in ("project_name", "description", "author_name") if name in given]
    return [refusal(name, given[name], rule) for name in free if re.search(r"\{[{%#]", given[name])]


@simple_filter
def quote(text: str) -> str:
    """A double-quoted literal that TOML, YAML and JSON read back as `text`."""
    return json.dumps(text, ensure_ascii=False)


@simple_filter
def markdown(text: str) -> str:
    """Markdown of one paragraph or heading that shows `text`: what would be read as markup is escaped."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", text.strip())
    escaped = re.sub(r"^[-+=]", r"\\\g<0>", escaped)  # a list, a line, the underline of a heading
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)  # a numbered list
