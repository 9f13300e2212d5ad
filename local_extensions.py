"""Jinja filters that put an answer, which is any text, safely into a file of another language."""

import json
import re

from cookiecutter.utils import simple_filter


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
