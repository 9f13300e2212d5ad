"""Jinja filters: they put an answer, which is any text, safely into a file of another language."""

import json
import re
from pathlib import Path

from cookiecutter.utils import simple_filter

QUESTIONS = json.loads((Path(__file__).resolve().parent / "cookiecutter.json").read_text(encoding="utf-8"))


@simple_filter
def choices(_answers: object) -> dict:
    """The values of each question that is a choice from a list; the answers themselves hold only what was chosen."""
    return {name: values for name, values in QUESTIONS.items() if isinstance(values, list) and name[0] != "_"}


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
