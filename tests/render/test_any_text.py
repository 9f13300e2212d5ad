"""Free text appears in every file as entered, or is rejected before any file is written.

The template is rendered in this process, by cookiecutter's own environment, for thousands of texts.
"""

import contextlib
import copy
import io
import json
import tomllib
from functools import cache

from cookiecutter.environment import StrictEnvironment
from cookiecutter.prompt import prompt_for_config
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import FileSystemLoader, Template
from markdown_it import MarkdownIt

from tests.variants import ANSWERS, PIECES, TEMPLATE

FREE = {"project_name", "description", "author_name"}
ROOT = TEMPLATE / "{{cookiecutter.project_slug}}"

CHARACTERS = "'\"\\`#*_|@=~\t\n\r\0\x85\u202e\u200f\ufeff\u00a0\u3000é😀"
WORDS = (
    "${HOME} $(id) `id` ${} $$ {{7*7}} {%raw%} {##} %} {{cookiecutter.project_slug}} -- ~~~ ``` ]]> ... --- "
    "[a](b) <b> </b> <!-- --> &amp; http://a.b a@b.c 👩‍👩‍👧 中文 \\N{DASH} \\u0041 \\x00 ''' \"\"\" "
    "null yes no 1e3 0x10 2026-11-23 !!python/object &a *a %TAG "
)
NASTY = [*CHARACTERS, *WORDS.split(), "- ", "+ ", "> ", "1. ", ": ", " #", "    "]
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(NASTY) | st.text(max_size=4), max_size=8).map("".join),
    st.text(alphabet="\"'\\\\{}%$`#:- ab", max_size=40),
    st.text(min_size=1, max_size=30).map(lambda text: (text * 3000)[:3000]),
)


MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


@cache
def template() -> tuple[Template, dict[str, Template]]:
    """Return the hook that validates the answers, and every file that reads free text."""
    env = StrictEnvironment(
        context={"cookiecutter": ANSWERS}, keep_trailing_newline=True, **ANSWERS["_jinja2_env_vars"]
    )
    env.loader = FileSystemLoader([ROOT, TEMPLATE / "templates"])
    files = {
        piece: env.get_template(piece) for piece in PIECES.files if not FREE.isdisjoint(PIECES.all_reads(piece, {}))
    }
    hook = (TEMPLATE / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    return env.from_string(hook), files


@cache
def defaults() -> dict[str, object]:
    """Return the default answers, private ones included."""
    questions = {"cookiecutter": copy.deepcopy(ANSWERS)}  # prompt_for_config removes the prompts
    return dict(prompt_for_config(questions, no_input=True))


def rendered(**typed: str) -> dict[str, str] | None:
    """Return the text of every file with these answers, or none if the hook rejects the answers."""
    answers = {**defaults(), **typed}
    hook, files = template()
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(compile(hook.render(cookiecutter=answers), "hook", "exec"), {})
        except SystemExit:
            return None
    return {name: file.render(cookiecutter=answers) for name, file in files.items()}


def shown(markdown: str, kind: str) -> str:
    """Return the visible text of the first heading or paragraph."""
    tokens = MARKDOWN.parse(markdown.split("\n## ")[0])
    at = next(number for number, token in enumerate(tokens) if token.type == f"{kind}_open")
    inline = tokens[at + 1].children or []
    assert {token.type for token in inline} <= {"text", "text_special", "softbreak", "link_open", "link_close"}
    assert [token.attrGet("href") for token in inline if token.type == "link_open"] in ([], ["FLOWER.md"])
    return " ".join("".join(token.content or " " * (token.type == "softbreak") for token in inline).split())


@settings(max_examples=1_000, deadline=None, derandomize=True)
@given(project_name=TEXTS, description=TEXTS, author_name=TEXTS)
def test_text_is_rendered_as_entered_or_rejected(project_name: str, description: str, author_name: str) -> None:
    files = rendered(project_name=project_name, description=description, author_name=author_name)
    if files is None:
        assert any(is_invisible(text) for text in (project_name, description, author_name))
        return
    about = json.loads(files["backend/app/about.json"])
    assert about == {"title": project_name, "description": description}
    settings = tomllib.loads(files["backend/pyproject.toml"])["project"]
    assert settings["description"] == description
    assert settings["authors"] == [{"name": author_name}]
    assert f"Copyright (c) {author_name}\n" in files["LICENSE"]
    assert shown(files["README.md"], "heading") == " ".join(project_name.split())
    assert shown(files["README.md"].split("\n", 1)[1], "paragraph") == " ".join(description.split())
    sentence = shown(files["QUICK_ACCESS.md"].split("\n", 1)[1], "paragraph")
    assert f"commands of {' '.join(project_name.split())}. The guide" in sentence


def is_invisible(text: str) -> bool:
    """Return whether a text is invisible, has control characters, or is not one line."""
    return not text.strip() or not text.isprintable()


def test_free_text_occurs_only_in_known_files() -> None:
    _, files = template()
    assert set(files) == {"LICENSE", "README.md", "QUICK_ACCESS.md", "backend/pyproject.toml", "backend/app/about.json"}
