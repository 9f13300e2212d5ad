"""Check the answers; refuse all that break a rule, each in one line, before anything is rendered."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
QUESTIONS = json.loads((Path(ANSWERS["_repo_dir"]) / "cookiecutter.json").read_text(encoding="utf-8"))


class Rule(NamedTuple):
    answer: str
    holds: Callable[[str], object]
    text: str


def one_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


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
# cookiecutter checks choices itself, but not those of a replay
RULES += [
    Rule(answer, values.__contains__, f"one of {', '.join(values)}")
    for answer, values in QUESTIONS.items()
    if isinstance(values, list) and not answer.startswith("_")
]

refused = [rule for rule in RULES if not rule.holds(ANSWERS[rule.answer])]
for rule in refused:
    print(
        f"{rule.answer}: {json.dumps(ANSWERS[rule.answer], ensure_ascii=False)} is refused: {rule.text}",
        file=sys.stderr,
    )
if refused:
    sys.exit(1)
