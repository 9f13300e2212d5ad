"""Pipelines of rendered projects: their schemas, their security, and updates of dependencies."""

import re
import subprocess
import sys
from pathlib import Path

from tests.project import Project
from tests.render.conftest import Distinct
from tests.variants import TEMPLATE

BIN = Path(sys.executable).parent


def run(*command: str, folder: Path) -> str:
    """Run a program of the template's environment; return its output."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def piped(distinct: Distinct, ci: str) -> list[Project]:
    """Return projects that differ in their pipeline."""
    paths = (".github/", ".gitlab-ci.yml", "renovate.json")
    return [project for project in distinct(lambda path: path.startswith(paths)) if project.variant["ci"] == ci]


def test_github_pipelines_have_no_findings(distinct: Distinct) -> None:
    projects = piped(distinct, "github")
    assert projects
    for project in projects:
        run("zizmor", "--offline", "--no-progress", "--persona=regular", ".github", folder=project.path)
        workflows = [str(path) for path in (project.path / ".github" / "workflows").iterdir()]
        run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows, folder=project.path)
        run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml", folder=project.path)


def test_pipelines_of_the_template_have_no_findings() -> None:
    run("zizmor", "--offline", "--no-progress", "--persona=regular", ".github", folder=TEMPLATE)
    run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml", folder=TEMPLATE)


def test_actions_are_pinned_by_commit(distinct: Distinct) -> None:
    for project in piped(distinct, "github"):
        text = "".join(text for path, text in project.files.items() if path.startswith(".github/workflows/"))
        used = re.findall(r"uses: (.*)", text)
        assert len(used) > 4
        assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)] == []


def test_gitlab_pipelines_are_valid(distinct: Distinct) -> None:
    projects = piped(distinct, "gitlab")
    assert projects
    for project in projects:
        run("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml", folder=project.path)
        run("check-jsonschema", "--builtin-schema", "vendor.renovate", "renovate.json", folder=project.path)
