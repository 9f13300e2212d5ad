"""Check the answers; refuse all that break a rule, each in one line, before anything is rendered."""

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
CHOICES = json.loads(r"""{{ cookiecutter | choices | tojson }}""")


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
RULES += [Rule(name, values.__contains__, f"one of {', '.join(values)}") for name, values in CHOICES.items()]

refused = [rule for rule in RULES if not rule.holds(ANSWERS[rule.answer])]
for rule in refused:
    print(
        f"{rule.answer}: {json.dumps(ANSWERS[rule.answer], ensure_ascii=False)} is refused: {rule.text}",
        file=sys.stderr,
    )
if refused:
    sys.exit(1)
