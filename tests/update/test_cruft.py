"""Updates of a rendered project with cruft, in git repositories that the tests create."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import copy_template
from tests.variants import CHOICES
from tools.pieces import PROJECT, Value

BIN = Path(sys.executable).parent
IDENTITY = {
    f"GIT_{role}_{part}": "flowerpot@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
}
OWN = {".cruft.json", ".env"}
"""Files that differ between any two projects."""

DATABASE = Path("templates/services/db/compose.yml")
FLOWER = Path("templates/services/flower/compose.yml")
GUIDE = Path("templates/flower/introduction.md")
CORE = Path(PROJECT, "backend/app/core/database.py")
DEMO = Path(PROJECT, "backend/app/features/demo/tasks.py")

OLDER = {
    DATABASE: ("postgres:18", "postgres:17"),
    FLOWER: ("${FLOWER_MEMORY:-512m}", "256m"),
    GUIDE: ("# Flower: the guide", "# Flower"),
    CORE: ("\n\n", "\n# The older version.\n\n"),
    DEMO: ("\n\n", "\n# The older version.\n\n"),
}
"""Files of the template that differ in its older version, with the newest text and the older one."""

CONFLICT = re.compile(r"^(<{7}|>{7})", re.M)


def run(folder: Path, *command: str | Path) -> str:
    """Run a command and return its output. If it fails, raise the output."""
    env = {**os.environ, **IDENTITY, "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def write(file: Path, text: str) -> None:
    """Write a file of the owner."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def replace(file: Path, old: str, new: str) -> None:
    """Replace text in a file, once."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name}: {old!r} not found"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def tree(folder: Path) -> dict[str, str]:
    """Return the text of every file by its path, except the files in OWN."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path): (folder / path).read_text(encoding="utf-8") for path in paths if str(path) not in OWN}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a repository of the template with two versions; the older is tagged."""
    folder = tmp_path_factory.mktemp("template") / "flowerpot"
    copy_template(folder)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    newest = {file: (folder / file).read_text(encoding="utf-8") for file in OLDER}
    for file, (newer, older) in OLDER.items():
        replace(folder / file, newer, older)
    write(folder / PROJECT / "backend" / "gone.txt", "Removed in the newest version.\n")
    commit(folder, "Add the older version")
    run(folder, "git", "tag", "older")
    for file, text in newest.items():
        write(folder / file, text)
    (folder / PROJECT / "backend" / "gone.txt").unlink()
    commit(folder, "Add the newest version")
    return folder


def create(template: Path, folder: Path, *options: str, **answers: Value) -> Path:
    """Create a project with cruft, and commit it."""
    folder.mkdir()
    context = json.dumps(answers)
    run(folder, BIN / "cruft", "create", template, "--no-input", "--extra-context", context, *options)
    project = folder / "my-service"
    run(project, "git", "init", "--quiet", "--initial-branch=main")
    commit(project, "Render")
    return project


def update(project: Path, **answers: Value) -> None:
    """Update a project without a conflict, and commit."""
    switch = ["--variables-to-update", json.dumps(answers)] if answers else []
    run(project, BIN / "cruft", "update", "--skip-apply-ask", *switch)
    assert list(project.rglob("*.rej")) == []
    assert [path for path, text in tree(project).items() if CONFLICT.search(text)] == []
    commit(project, "Update")


def test_update_keeps_the_changes_of_the_owner(template: Path, tmp_path: Path) -> None:
    project = create(template, tmp_path / "made", "--checkout", "older")
    compose = project / "docker-compose.yml"
    assert "postgres:17" in compose.read_text(encoding="utf-8")
    secrets = (project / ".env").read_text(encoding="utf-8")
    replace(compose, "WORKER_MEMORY:-1g", "WORKER_MEMORY:-4g")
    replace(project / "README.md", "## Stop\n", "## Our team\n\nContact Ann.\n\n## Stop\n")
    (project / "LICENSE").unlink()
    commit(project, "Change")

    update(project)
    text = compose.read_text(encoding="utf-8")
    assert "postgres:18" in text
    assert "FLOWER_MEMORY:-512m" in text
    assert "WORKER_MEMORY:-4g" in text
    assert "Contact Ann." in (project / "README.md").read_text(encoding="utf-8")
    assert not (project / "backend" / "gone.txt").exists()
    assert not (project / "LICENSE").exists()
    assert (project / "FLOWER.md").read_text(encoding="utf-8").startswith("# Flower: the guide")
    assert (project / ".env").read_text(encoding="utf-8") == secrets


def test_update_does_not_change_features(template: Path, tmp_path: Path) -> None:
    """Core changes. Features do not, even if the newest demo differs or the team has deleted it."""
    project = create(template, tmp_path / "made", "--checkout", "older")
    backend = project / "backend"
    assert "older version" in (backend / "app" / "features" / "demo" / "tasks.py").read_text(encoding="utf-8")
    orders = backend / "app" / "features" / "orders"
    write(orders / "__init__.py", '"""Orders."""\n')
    write(orders / "tables.py", '"""Tables of orders."""\n\nfrom app.core.database import Base\n')
    write(orders / "data" / "rates.csv", "EUR,1\n")
    write(backend / "migrations" / "features" / "0001_orders.py", '"""Create the table of orders."""\n')
    write(backend / "tests" / "features" / "test_orders.py", '"""Tests of orders."""\n')
    replace(backend / "app" / "features" / "demo" / "tasks.py", "older version", "team's version")
    commit(project, "Add orders")
    folders = [backend / "app" / "features", backend / "migrations" / "features", backend / "tests" / "features"]
    before = [{path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in folders]
    assert all(before)

    update(project)
    after = [{path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in folders]
    assert after == before
    assert "older version" not in (backend / "app" / "core" / "database.py").read_text(encoding="utf-8")

    shutil.rmtree(backend / "app" / "features" / "demo")
    commit(project, "Delete the demo")
    update(project, flower_auth="none")
    assert not (backend / "app" / "features" / "demo").exists()


def test_update_keeps_variables_of_the_owner(template: Path, tmp_path: Path) -> None:
    """The variables have their own block, away from lines that answers change."""
    project = create(template, tmp_path / "made")
    own = "&environment\n  MAIL_HOST: ${MAIL_HOST:-mail}\n  MAIL_PORT: ${MAIL_PORT:-25}\n"
    replace(project / "docker-compose.yml", "&environment {}\n", own)
    commit(project, "Add variables")
    for backend in ("redis", "database"):
        update(project, result_backend=backend, flower_persistence=False)
        text = (project / "docker-compose.yml").read_text(encoding="utf-8")
        assert own in text
        assert "CELERY_RESULT_BACKEND: rpc" not in text


def test_fresh_project_has_no_difference(template: Path, tmp_path: Path) -> None:
    project = create(template, tmp_path / "made")
    assert run(project, BIN / "cruft", "diff").strip().endswith("README.md has the details.")
    assert run(project, BIN / "cruft", "check", "--strict").strip().startswith("SUCCESS")


def test_answers_can_all_be_changed_by_an_update(template: Path, tmp_path: Path) -> None:
    """Change every answer to its next value in each update, until each is its first again and has had all values.

    Each update equals a fresh project with these answers.
    """
    project = create(template, tmp_path / "made")
    secrets = (project / ".env").read_text(encoding="utf-8")
    for number in range(1, max(map(len, CHOICES.values()))):
        answers = {name: values[number % len(values)] for name, values in CHOICES.items()}
        assert_update_equals_a_fresh_project(project, template, answers)
    assert_update_equals_a_fresh_project(project, template, {name: values[0] for name, values in CHOICES.items()})
    assert (project / ".env").read_text(encoding="utf-8") == secrets


def assert_update_equals_a_fresh_project(project: Path, template: Path, answers: dict[str, Value]) -> None:
    """Change answers of a project by an update, and compare it with a project that is rendered with them."""
    update(project, **answers)
    fresh = project.parent / "fresh"
    given = [f"{name}={value}" for name, value in answers.items()]
    run(project.parent, BIN / "cookiecutter", "--no-input", "--output-dir", fresh, template, *given)
    assert tree(project) == tree(fresh / "my-service"), answers
    shutil.rmtree(fresh)


def test_conflict_is_marked_in_the_file(template: Path, tmp_path: Path) -> None:
    """The commands are those of the README of a rendered project."""
    project = create(template, tmp_path / "made", "--checkout", "older")
    replace(project / "docker-compose.yml", "postgres:17", "postgres:16")
    commit(project, "Use another PostgreSQL")
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert "cruft update --skip-apply-ask\n" in readme
    printed = run(project, BIN / "cruft", "update", "--skip-apply-ask")
    assert "twice" in readme
    assert printed.count("my-service is rendered.") == 2
    assert "`git diff --name-only --diff-filter=U`" in readme
    assert run(project, "git", "diff", "--name-only", "--diff-filter=U").split() == ["docker-compose.yml"]
    assert CONFLICT.search((project / "docker-compose.yml").read_text(encoding="utf-8"))
    assert list(project.rglob("*.rej")) == []
