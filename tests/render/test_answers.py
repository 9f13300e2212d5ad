"""Answers: what is refused, what comes out, and what the hooks do."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.variants import ANSWERS, CHOICES, TEMPLATE, Variant

COOKIECUTTER = Path(sys.executable).parent / "cookiecutter"


def command_line(folder, *answers, hooks="yes"):
    """Render by the command that users type; returns its exit status and output."""
    command = [COOKIECUTTER, "--no-input", "--accept-hooks", hooks, "--output-dir", folder, TEMPLATE, *answers]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("answer", "value", "rule"),
    [
        ("project_name", "   ", "one line with at least one character that shows"),
        ("project_name", "two\nlines", "one line"),
        ("project_slug", "My Service", "lowercase letters, digits and single dashes, starting with a letter"),
        ("project_slug", "1st", "starting with a letter"),
        ("project_slug", "a--b", "single dashes"),
        ("project_slug", "a-", "single dashes"),
        ("project_slug", "a" * 41, "at most 40"),
        ("project_slug", "../outside", "lowercase letters"),
        ("description", "", "at least one character"),
        ("author_name", "\u200b", "at least one character"),
        ("description", "a {{ 7 * 7 }}", "Jinja in it would be run; type it at cookiecutter's prompt"),
        ("author_name", "{% raw %}{% endraw %}me", "leave out {{, {% and {#"),
    ],
)
def test_a_refused_answer_is_named_with_its_rule(tmp_path, answer, value, rule):
    done = command_line(tmp_path, f"{answer}={value}")
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(f"{answer}: ")]
    assert len(lines) == 1
    assert f"{json.dumps(value, ensure_ascii=False)} is refused" in lines[0]
    assert rule in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_every_refusal_is_said_at_once_and_nothing_else(tmp_path):
    done = command_line(tmp_path, "project_slug=Not a slug", "author_name= ")
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == ["project_slug", "author_name"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_a_long_text_is_short(tmp_path):
    done = command_line(tmp_path, "description=" + "\t" * 3000)
    assert len(done.stdout) < 600


@pytest.mark.parametrize("answer", [name for name in CHOICES if isinstance(ANSWERS[name], list)])
def test_a_choice_that_does_not_exist_is_named(tmp_path, answer):
    done = command_line(tmp_path, f"{answer}=nonesuch")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert answer in last
    assert "nonesuch" in last
    assert all(value in last for value in CHOICES[answer])
    assert list(tmp_path.iterdir()) == []


def test_a_choice_that_does_not_exist_is_refused_in_a_replay(tmp_path):
    answers = {**ANSWERS, **{name: values[0] for name, values in CHOICES.items()}, "result_backend": "nonesuch"}
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps({"cookiecutter": {**answers, "project_slug": "replayed"}}), encoding="utf-8")
    command = [COOKIECUTTER, "--replay-file", replay, "--output-dir", tmp_path, TEMPLATE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'result_backend: "nonesuch" is refused: one of rpc, redis, database' in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [replay]


def test_text_comes_out_as_it_was_typed(render):
    odd = {
        "project_name": """A "quoted" 'name' \\ with {braces}, $(true), `ticks`, #, : and 😀""",
        "project_slug": "odd",
        "description": """Says "no" to 'yes': 100 % <b>bold</b> | $HOME \\n 😀""",
        "author_name": "Ørsted & Söhne, \"Inc.\" \\ 'GmbH'",
    }
    project = render(Variant.of(), **odd)
    about = json.loads(project.files["backend/app/about.json"])
    assert about == {"title": odd["project_name"], "description": odd["description"]}
    settings = tomllib.loads(project.files["backend/pyproject.toml"])["project"]
    assert (settings["description"], settings["authors"][0]["name"]) == (odd["description"], odd["author_name"])
    assert odd["author_name"] in project.files["LICENSE"]
    assert yaml.safe_load(project.files["docker-compose.yml"])["name"] == "odd"
    assert project.files["README.md"].startswith(
        "# A \"quoted\" 'name' \\\\ with {braces}, \\$(true), \\`ticks\\`, \\#,"
    )


def test_secrets_are_fresh_and_complete(render):
    one, other = render(Variant.of()).env, render(Variant.of()).env
    secret = [name for name, value in one.items() if re.fullmatch("[0-9a-f]{32}", value)]
    assert secret == ["POSTGRES_PASSWORD", "RABBITMQ_DEFAULT_PASS", "FLOWER_PASSWORD"]
    assert len({one[name] for name in secret} | {other[name] for name in secret}) == 6
    assert {name: one[name] for name in one if name not in secret} == {
        name: other[name] for name in other if name not in secret
    }


def test_secrets_are_not_readable_by_others_and_not_committed(render):
    project = render(Variant.of())
    assert (project.path / ".env").stat().st_mode & 0o077 == 0
    assert ".env" in project.files[".gitignore"].splitlines()


def test_rendering_again_keeps_the_secrets(tmp_path):
    command_line(tmp_path)
    before = (tmp_path / "my-service" / ".env").read_text()
    command = [COOKIECUTTER, "--no-input", "--overwrite-if-exists", "--output-dir", tmp_path, TEMPLATE]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "my-service" / ".env").read_text() == before


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is not installed")
def test_without_hooks_compose_refuses_and_names_the_remedy(tmp_path):
    assert command_line(tmp_path, hooks="no").returncode == 0
    project = tmp_path / "my-service"
    assert not (project / ".env").exists()
    done = subprocess.run(["docker", "compose", "config"], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert re.search(r"POSTGRES_\w+|RABBITMQ_\w+|FLOWER_\w+", done.stderr)
    assert "Copy .env.example to .env and fill it in" in done.stderr


def test_what_comes_next_is_said(tmp_path):
    said = command_line(tmp_path).stdout
    assert "cd my-service" in said
    assert "docker compose up --build --wait" in said
