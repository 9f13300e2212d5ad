"""Files of the development loop, and the errors that the README explains."""

import json
import os
import re
from typing import Any

import pytest
import yaml

from tests.project import Project
from tests.render.conftest import Distinct, needs_compose

OVERLAY = "docker-compose.dev.yml"


@pytest.fixture(scope="session")
def developed(distinct: Distinct) -> list[tuple[Project, dict[str, Any]]]:
    """Select projects that differ in the files that compose reads, with their services in development."""
    projects = distinct(lambda path: path in {"docker-compose.yml", OVERLAY, ".env.example"})
    command = ("docker", "compose", "config", "--format", "json")
    return [
        (project, json.loads(project.run(*command, env=development_variables(project)).stdout)["services"])
        for project in projects
    ]


def development_variables(project: Project) -> dict[str, str]:
    """Return the variables that make every compose command use the development file, from the README."""
    return dict(re.findall(r"^(COMPOSE_\w+)=(.*)$", project.files["README.md"], re.M))


@needs_compose
def test_development_changes_only_code_commands_ports_and_logs(developed: list[tuple[Project, dict[str, Any]]]) -> None:
    own = {"image", "build", "command", "environment", "ports", "volumes", "stop_signal"}
    for project, services in developed:
        for name, service in services.items():
            before = project.compose["services"][name]
            changed = {key for key in before.keys() | service.keys() if before.get(key) != service.get(key)}
            assert changed <= (own if name in {"backend", "worker", "flower"} else set()), (
                f"{project.variant.id}: {name}"
            )


@needs_compose
def test_development_mounts_code_read_only_and_opens_debuggers_on_localhost(
    developed: list[tuple[Project, dict[str, Any]]],
) -> None:
    for project, services in developed:
        for name in ("backend", "worker", "flower"):
            service = services[name]
            assert service["image"] == "my-service-test", project.variant.id
            assert service["environment"]["LOG_FORMAT"] == "console"
            bound = {
                volume["target"]: volume.get("read_only") for volume in service["volumes"] if volume["type"] == "bind"
            }
            assert bound == {"/srv/app": True, "/srv/migrations": True}
        ports = [port for name in ("backend", "worker") for port in services[name]["ports"]]
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
        assert {int(port["published"]) for port in ports} == {8060, 5678, 5679}
        launch = json.loads(project.files[".vscode/launch.json"])
        assert [each["connect"]["port"] for each in launch["configurations"]] == [5678, 5679]


@needs_compose
def test_reloaded_worker_has_the_options_of_the_worker(developed: list[tuple[Project, dict[str, Any]]]) -> None:
    for project, services in developed:
        command = " ".join(project.compose["services"]["worker"]["command"])
        assert f"python -m {command}" in services["worker"]["command"], project.variant.id
        assert "python -m app.main" in services["backend"]["command"], project.variant.id


@needs_compose
def test_missing_env_file_is_reported_with_the_fix(projects: list[Project]) -> None:
    with pytest.raises(AssertionError, match=r"required variable \w+ is missing a value: .* Copy \.env\.example to"):
        projects[0].run("docker", "compose", "--env-file", os.devnull, "config")


def test_development_container_has_the_name_of_the_project(projects: list[Project]) -> None:
    for project in projects:
        container = json.loads(project.files[".devcontainer/devcontainer.json"])
        assert container["name"] == "my-service", project.variant.id


def test_commit_hooks_are_the_checks_of_the_readme(projects: list[Project]) -> None:
    (text,) = {project.files[".pre-commit-config.yaml"] for project in projects}
    hooks = [hook["entry"] for repository in yaml.safe_load(text)["repos"] for hook in repository["hooks"]]
    for project in projects:
        section = project.files["README.md"].partition("## Tests and checks")[2]
        checks = re.findall(r"^uv run --directory backend (?!pytest).*$", section, re.M)[: len(hooks)]
        wanted = [check.replace(" --check", "") for check in checks]
        assert [hook.replace(" --fix", "") for hook in hooks] == wanted, project.variant.id


def test_production_image_has_no_development_tools(projects: list[Project]) -> None:
    for project in projects:
        runtime = project.files["backend/Dockerfile"].rpartition("FROM base AS runtime")[2]
        assert "COPY --from=build /opt/venv" in runtime, project.variant.id
        production = project.files["backend/pyproject.toml"].partition("[dependency-groups]")[0]
        assert "debugpy" not in production, project.variant.id
        assert "watchfiles" not in production, project.variant.id
