"""Any text that is typed comes out of every file as it was typed, or is refused before a file is made.

The whole template is rendered in this process, by cookiecutter's own environment, for thousands of texts.
"""

import contextlib
import copy
import io
import json
import tomllib
from fnmatch import fnmatch
from functools import cache

import yaml
from cookiecutter.environment import StrictEnvironment
from cookiecutter.prompt import prompt_for_config
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import FileSystemLoader, Template
from markdown_it import MarkdownIt

from tests.variants import ANSWERS, TEMPLATE

FREE = ("project_name", "description", "author_name")
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


@cache
def template() -> tuple[Template, dict[str, Template]]:
    """The hook that checks the answers, and every file that cookiecutter renders, in its own environment."""
    env = StrictEnvironment(
        context={"cookiecutter": ANSWERS}, keep_trailing_newline=True, **ANSWERS["_jinja2_env_vars"]
    )
    env.loader = FileSystemLoader([TEMPLATE, TEMPLATE / "templates"])
    files = {}
    for path in sorted(file for file in ROOT.rglob("*") if file.is_file()):
        name = path.relative_to(ROOT).as_posix()
        if "uv.lock" not in name and not any(fnmatch(name, pattern) for pattern in ANSWERS["_copy_without_render"]):
            files[name] = env.get_template(path.relative_to(TEMPLATE).as_posix())
    return env.get_template("hooks/pre_gen_project.py"), files


@cache
def defaults() -> dict[str, object]:
    """The answers that cookiecutter would come to by itself."""
    questions = {"cookiecutter": copy.deepcopy(ANSWERS)}  # it takes the prompts out of them
    return prompt_for_config(questions, no_input=True)


def rendered(**typed: str) -> dict[str, str] | None:
    """The text of every file with these answers; none when the hook refuses them."""
    answers = {**defaults(), **typed}
    hook, files = template()
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(compile(hook.render(cookiecutter=answers), "hook", "exec"), {})
        except SystemExit:
            return None
    return {name: file.render(cookiecutter=answers) for name, file in files.items()}


def shown(markdown: str, kind: str) -> str:
    """What a reader sees of the first heading or paragraph."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    at = next(number for number, token in enumerate(tokens) if token.type == f"{kind}_open")
    inline = tokens[at + 1].children or []
    assert {token.type for token in inline} <= {"text", "text_special", "softbreak", "link_open", "link_close"}
    assert [token.attrGet("href") for token in inline if token.type == "link_open"] in ([], ["FLOWER.md"])
    return " ".join("".join(token.content or " " * (token.type == "softbreak") for token in inline).split())


@settings(max_examples=2_000, deadline=None, derandomize=True)
@given(project_name=TEXTS, description=TEXTS, author_name=TEXTS)
def test_any_text_comes_out_as_it_was_typed_or_is_refused(project_name, description, author_name):
    files = rendered(project_name=project_name, description=description, author_name=author_name)
    if files is None:
        assert any(refusable(text) for text in (project_name, description, author_name))
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


def refusable(text):
    """Whether a person could not tell what was typed: nothing shows, or it controls something, or is not a line."""
    return not text.strip() or not text.isprintable()


def test_files_without_free_text_are_the_same_whatever_is_typed():
    plain, odd = rendered(), rendered(**dict.fromkeys(FREE, "{{ 1 }} ${HOME} $(id) `id` 'x' \"y\" # : %"))
    changed = {name for name in plain if plain[name] != odd[name]}
    assert changed == {"LICENSE", "README.md", "QUICK_ACCESS.md", "backend/pyproject.toml", "backend/app/about.json"}
    assert yaml.safe_load(odd["docker-compose.yml"]) == yaml.safe_load(plain["docker-compose.yml"])
