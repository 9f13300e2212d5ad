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
    """Markdown that shows `text` as it was typed: what Markdown or HTML would read as markup is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", text)
