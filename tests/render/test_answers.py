"""Answers: validation, quoting, and the hooks."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import cookiecutter.cli
import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import Render
from tests.render.conftest import needs_compose
from tests.variants import ANSWERS, CHOICES, TEMPLATE, Variant

COOKIECUTTER = Path(sys.executable).parent / "cookiecutter"


def run_cookiecutter(
    folder: Path, *answers: str, hooks: str = "yes", overwrite: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command that users run; return the process."""
    options: list[str | Path] = ["--no-input", "--accept-hooks", hooks, "--output-dir", folder]
    options += ["--overwrite-if-exists"] * overwrite
    command: list[str | Path] = [COOKIECUTTER, *options, TEMPLATE, *answers]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def reject(folder: Path, *answers: str) -> str:
    """Render in this process, without a hook's output; return the error after checking that no file was written."""
    options = ["--no-input", "--output-dir", str(folder), str(TEMPLATE), *answers]
    done = CliRunner().invoke(cookiecutter.cli.main, options)
    assert done.exit_code == 1
    assert list(folder.iterdir()) == []
    return f"{done.output}\n{done.exception}"


@pytest.mark.parametrize(
    ("answer", "value", "fix"),
    [
        ("project_name", "   ", "use one line with at least one visible character"),
        ("project_name", "two\nlines", "use one line"),
        ("project_slug", "My Service", "lowercase letters, digits and single dashes, starting with a letter"),
        ("project_slug", "1st", "starting with a letter"),
        ("project_slug", "a--b", "single dashes"),
        ("project_slug", "a-", "single dashes"),
        ("project_slug", "a" * 41, "use at most 40 characters"),
        ("project_slug", "../outside", "lowercase letters"),
        ("description", "", "at least one visible character"),
        ("author_name", "\u200b", "at least one visible character"),
        ("description", "a {{ 7 * 7 }}", "cookiecutter would evaluate the Jinja in it; enter it at the prompt"),
        ("author_name", "{% raw %}{% endraw %}me", "or remove {{, {% and {#"),
    ],
)
def test_answer_is_rejected_with_the_fix(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], answer: str, value: str, fix: str
) -> None:
    printed = reject(tmp_path, f"{answer}={value}") + "\n" + capfd.readouterr().err
    lines = [line for line in printed.splitlines() if line.startswith(f"{answer}: ")]
    assert len(lines) == 1
    assert f"{json.dumps(value, ensure_ascii=False)} is invalid: " in lines[0]
    assert fix in lines[0]


def test_violations_are_all_printed_at_once(tmp_path: Path) -> None:
    done = run_cookiecutter(tmp_path, "project_slug=Not a slug", "author_name= ")
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == ["project_slug", "author_name"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_violation_of_a_long_text_is_shortened(tmp_path: Path) -> None:
    assert len(reject(tmp_path, "description=" + "\t" * 3000)) < 600


@pytest.mark.parametrize("answer", [name for name in CHOICES if isinstance(ANSWERS[name], list)])
def test_unknown_choice_is_rejected(tmp_path: Path, answer: str) -> None:
    error = reject(tmp_path, f"{answer}=nonesuch").splitlines()[-1]
    assert answer in error
    assert "nonesuch" in error
    assert all(str(value) in error for value in CHOICES[answer])


def test_unknown_choice_is_rejected_in_a_replay(tmp_path: Path) -> None:
    answers = {**ANSWERS, **{name: values[0] for name, values in CHOICES.items()}, "result_backend": "nonesuch"}
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps({"cookiecutter": {**answers, "project_slug": "replayed"}}), encoding="utf-8")
    command: list[str | Path] = [COOKIECUTTER, "--replay-file", replay, "--output-dir", tmp_path, TEMPLATE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'result_backend: "nonesuch" is invalid: use one of rpc, redis, database' in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [replay]


def test_text_is_rendered_as_entered(render: Render) -> None:
    odd = {
        "project_name": """A "quoted" 'name' \\ with {braces}, $(true), `ticks`, #, : and 😀""",
        "project_slug": "null",  # not a text in YAML
        "description": """Quotes "no" and 'yes': 100 % <b>bold</b> | $HOME \\n 😀""",
        "author_name": "Ørsted & Söhne, \"Inc.\" \\ 'GmbH'",
    }
    project = render(Variant.of(), **odd)
    about = json.loads(project.files["backend/app/about.json"])
    assert about == {"title": odd["project_name"], "description": odd["description"]}
    settings = tomllib.loads(project.files["backend/pyproject.toml"])["project"]
    assert (settings["description"], settings["authors"][0]["name"]) == (odd["description"], odd["author_name"])
    assert odd["author_name"] in project.files["LICENSE"]
    assert yaml.safe_load(project.files["docker-compose.yml"])["name"] == "null"
    assert project.files["README.md"].startswith(
        "# A \"quoted\" 'name' \\\\ with {braces}, \\$(true), \\`ticks\\`, \\#,"
    )


def test_secrets_are_fresh_and_complete(render: Render) -> None:
    one, other = render(Variant.of()).env, render(Variant.of()).env
    secret = [name for name, value in one.items() if re.fullmatch("[0-9a-f]{32}", value)]
    names = {
        "POSTGRES_PASSWORD",
        "POSTGRES_ADMIN_PASSWORD",
        "RABBITMQ_DEFAULT_PASS",
        "FLOWER_API_KEY",
        "FLOWER_PASSWORD",
    }
    assert set(secret) == names
    assert len({one[name] for name in secret} | {other[name] for name in secret}) == 2 * len(names)
    assert {name: one[name] for name in one if name not in secret} == {
        name: other[name] for name in other if name not in secret
    }


def test_secrets_are_private_and_ignored_by_git(render: Render) -> None:
    project = render(Variant.of())
    assert (project.path / ".env").stat().st_mode & 0o077 == 0
    assert ".env" in project.files[".gitignore"].splitlines()


def test_rendering_again_keeps_the_secrets(tmp_path: Path) -> None:
    run_cookiecutter(tmp_path)
    before = (tmp_path / "my-service" / ".env").read_text()
    assert run_cookiecutter(tmp_path, overwrite=True).returncode == 0
    assert (tmp_path / "my-service" / ".env").read_text() == before


@needs_compose
def test_compose_error_names_the_fix_when_hooks_were_skipped(tmp_path: Path) -> None:
    assert run_cookiecutter(tmp_path, hooks="no").returncode == 0
    project = tmp_path / "my-service"
    assert not (project / ".env").exists()
    done = subprocess.run(["docker", "compose", "config"], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert re.search(r"POSTGRES_\w+|RABBITMQ_\w+|FLOWER_\w+", done.stderr)
    assert "Copy .env.example to .env and fill it in" in done.stderr


def test_next_steps_are_printed(tmp_path: Path) -> None:
    printed = run_cookiecutter(tmp_path).stdout
    assert "cd my-service" in printed
    assert "docker compose up --build --wait" in printed


@pytest.mark.parametrize("ci", CHOICES["ci"])
def test_folders_are_never_empty(render: Render, ci: str) -> None:
    project = render(Variant.of(ci=ci))
    assert [path for path in project.path.rglob("*") if path.is_dir() and not any(path.iterdir())] == []


def test_rendering_again_keeps_own_files_in_folders_that_rendered_empty(tmp_path: Path) -> None:
    own = tmp_path / "my-service" / ".github" / "workflows" / "own.yml"
    own.parent.mkdir(parents=True)
    own.write_text("on: push\n", encoding="utf-8")
    assert run_cookiecutter(tmp_path, "ci=none", overwrite=True).returncode == 0
    assert own.read_text(encoding="utf-8") == "on: push\n"
