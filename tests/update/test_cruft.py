"""A rendered project follows the template for years: with cruft, in git repositories that the tests make."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.variants import CHOICES, TEMPLATE

BIN = Path(sys.executable).parent
WHO = {f"GIT_{role}_{what}": "flowerpot@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
OWN = {".cruft.json", ".env"}
"""What no two projects have in common."""


def run(folder, *command):
    """Run a command; when it fails, its output is the error."""
    env = {**os.environ, **WHO, "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(folder, message):
    """Commit all there is."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def tree(folder):
    """Every file that is not a project's own, by its path."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path): (folder / path).read_text(encoding="utf-8") for path in paths if str(path) not in OWN}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The template as a repository with two versions: the older has another PostgreSQL, and no limit on Flower."""
    folder = tmp_path_factory.mktemp("template") / "flowerpot"
    shutil.copytree(
        TEMPLATE, folder, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
    )
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    rendered = folder / "{{cookiecutter.project_slug}}"
    newest = {name: (rendered / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", "FLOWER.md")}
    older = newest["docker-compose.yml"].replace("postgres:18", "postgres:17").replace("${FLOWER_MEMORY:-512m}", "256m")
    assert older != newest["docker-compose.yml"]
    (rendered / "docker-compose.yml").write_text(older, encoding="utf-8")
    (rendered / "FLOWER.md").write_text("# Flower\n\nTo be written.\n", encoding="utf-8")
    (rendered / "backend" / "gone.txt").write_text("Gone in the newest version.\n", encoding="utf-8")
    commit(folder, "The older version")
    run(folder, "git", "tag", "older")
    for name, text in newest.items():
        (rendered / name).write_text(text, encoding="utf-8")
    (rendered / "backend" / "gone.txt").unlink()
    commit(folder, "The newest version")
    return folder


def create(template, folder, *options, **answers):
    """A project of cruft's, committed."""
    folder.mkdir()
    given = json.dumps(answers)
    run(folder, BIN / "cruft", "create", template, "--no-input", "--extra-context", given, *options)
    project = folder / "my-service"
    run(project, "git", "init", "--quiet", "--initial-branch=main")
    commit(project, "Rendered")
    return project


def update(project, **answers):
    """Update a project, and commit."""
    switch = ["--variables-to-update", json.dumps(answers)] if answers else []
    run(project, BIN / "cruft", "update", "--skip-apply-ask", *switch)
    assert list(project.rglob("*.rej")) == []
    commit(project, "Updated")


def test_a_project_follows_and_keeps_what_its_owner_changed(template, tmp_path):
    project = create(template, tmp_path / "made", "--checkout", "older")
    assert "postgres:17" in (project / "docker-compose.yml").read_text()
    secrets = (project / ".env").read_text()
    compose = project / "docker-compose.yml"
    compose.write_text(compose.read_text().replace("WORKER_MEMORY:-1g", "WORKER_MEMORY:-4g"))
    own = project / "backend" / "app" / "tasks" / "own.py"
    own.write_text('"""Ours."""\n')
    readme = project / "README.md"
    readme.write_text(readme.read_text().replace("## Stop\n", "## Our team\n\nAsk Ann.\n\n## Stop\n"))
    (project / "LICENSE").unlink()
    commit(project, "What the owner changed")

    update(project)
    text = compose.read_text()
    assert "postgres:18" in text
    assert "FLOWER_MEMORY:-512m" in text
    assert "WORKER_MEMORY:-4g" in text
    assert own.read_text() == '"""Ours."""\n'
    assert "Ask Ann." in readme.read_text()
    assert not (project / "backend" / "gone.txt").exists()
    assert not (project / "LICENSE").exists()
    assert (project / "FLOWER.md").read_text().startswith("# Flower: the guide")
    assert (project / ".env").read_text() == secrets


def test_a_fresh_project_differs_in_nothing(template, tmp_path):
    project = create(template, tmp_path / "made")
    assert run(project, BIN / "cruft", "diff").strip().endswith("README.md has the rest.")
    assert run(project, BIN / "cruft", "check", "--strict").strip().startswith("SUCCESS")


def test_every_answer_can_be_another_later(template, tmp_path):
    """One after another, in one project; each time it is the project that this answer would have given at once."""
    project = create(template, tmp_path / "made")
    secrets = (project / ".env").read_text()
    answers = {}
    for name, values in CHOICES.items():
        for value in [*values[1:], values[0]]:
            answers[name] = value
            update(project, **{name: value})
            given = [f"{answer}={chosen}" for answer, chosen in answers.items()]
            fresh = tmp_path / f"{name}-{value}"
            run(tmp_path, BIN / "cookiecutter", "--no-input", "--output-dir", fresh, template, *given)
            assert tree(project) == tree(fresh / "my-service"), (name, value)
    assert (project / ".env").read_text() == secrets
