"""Check the answers; refuse all that break a rule, each in one line, before anything is rendered."""

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
CHOICES = json.loads(r"""{{ cookiecutter | choices | tojson }}""")
# What was given on the command line or in a configuration, before cookiecutter rendered it; absent in a replay
GIVEN = json.loads(r"""{{ _cookiecutter | default({}) | tojson }}""")
# {% raw %} (what follows is Python alone)


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

if [int(part) for part in version("cookiecutter").split(".")[:2]] < [2, 7]:
    sys.exit(
        f"cookiecutter {version('cookiecutter')} is too old: 2.7 or newer is needed, for example by uvx cookiecutter"
    )

refused = [(rule.answer, ANSWERS[rule.answer], rule.text) for rule in RULES if not rule.holds(ANSWERS[rule.answer])]
# There cookiecutter runs what stands in an answer as Jinja, while what is typed at a prompt stays as it is
refused += [
    (
        name,
        GIVEN[name],
        "Jinja in it would be run; type it at cookiecutter's prompt, or leave out {{, {% and {#",
    )
    for name in ("project_name", "description", "author_name")
    if re.search(r"\{[{%#]", GIVEN.get(name, ""))
]
for name, value, rule in refused:
    shown = json.dumps(value if len(value) <= 200 else value[:200] + "…", ensure_ascii=False)
    print(f"{name}: {shown} is refused: {rule}", file=sys.stderr)
if refused:
    sys.exit(1)
# {% endraw %}
