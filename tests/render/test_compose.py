"""docker-compose.yml as parsed by compose."""

import json
from pathlib import Path

import pytest

from tests.project import Project
from tests.render.conftest import Distinct, needs_compose

OWN_SERVICES = {"backend", "worker", "flower"}

pytestmark = needs_compose

MONITORING = {"prometheus": 9090, "grafana": 3000}
"""Services that `monitoring=prometheus` adds, with their ports."""


@pytest.fixture(scope="session")
def composed(distinct: Distinct) -> list[Project]:
    """Select projects that differ in the files that compose reads."""
    return list(distinct(lambda path: path in {"docker-compose.yml", "docker-compose.prod.yml", ".env.example"}))


def test_services_and_volumes_follow_from_the_answers(composed: list[Project]) -> None:
    for project in composed:
        services = {"db", "rabbitmq", "test"} | OWN_SERVICES
        volumes = {"db-data", "rabbitmq-data"}
        if project.variant["result_backend"] == "redis":
            services.add("redis")
            volumes.add("redis-data")
        if project.variant["flower_persistence"]:
            volumes.add("flower-data")
        if project.variant["monitoring"] == "prometheus":
            services |= MONITORING.keys()
            volumes |= {"prometheus-data", "grafana-data"}
        assert set(project.compose["services"]) == services, project.variant.id
        assert set(project.compose["volumes"]) == volumes, project.variant.id


def test_ports_are_bound_to_localhost(composed: list[Project]) -> None:
    for project in composed:
        ports = [port for service in project.compose["services"].values() for port in service.get("ports", [])]
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}, project.variant.id
        expected = {5432, 5672, 15672, 8060, 5555}
        if project.variant["monitoring"] == "prometheus":
            expected |= set(MONITORING.values())
        assert {int(port["published"]) for port in ports} == expected, project.variant.id


def test_services_have_health_check_memory_limit_log_rotation_and_restart_policy(composed: list[Project]) -> None:
    for project in composed:
        for name, service in project.compose["services"].items():
            where = f"{project.variant.id}: {name}"
            assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, where
            if name == "test":
                continue
            assert service["healthcheck"]["test"], where
            assert int(service["mem_limit"]) > 0, where
            assert service["restart"] == "unless-stopped", where


def test_own_services_run_unprivileged_from_one_image(composed: list[Project]) -> None:
    for project in composed:
        services = [project.compose["services"][name] for name in sorted(OWN_SERVICES)]
        assert len({service["image"] for service in services}) == 1
        for service in services:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["init"] is True


def test_services_receive_only_the_variables_that_they_need(composed: list[Project]) -> None:
    shared = {"RABBITMQ_HOST", "RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"}
    shared |= {"CELERY_RESULT_BACKEND", "LOG_LEVEL", "LOG_FORMAT"}
    database = {"POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    for project in composed:
        services = project.compose["services"]
        of = {name: set(service.get("environment", {})) for name, service in services.items()}
        own = {"BACKEND_PROCESSES", "HISTORY_DAYS", "HISTORY_FAILURE_DAYS", "ALLOWED_HOSTS"}
        own |= {"API_KEYS", "FLOWER_API_KEY", "PROMETHEUS_MULTIPROC_DIR"}
        assert of["backend"] == shared | database | own, project.variant.id
        assert of["worker"] == shared | database | {"WORKER_QUEUES"}, project.variant.id
        assert of["test"] == shared | database | {"API_KEY"}, project.variant.id
        own = {name for name in of["flower"] - shared if not name.startswith("FLOWER_")}
        assert own == {"ALLOWED_HOSTS", "API_URL", "API_KEY"}, project.variant.id
        assert shared <= of["flower"]
        assert "FLOWER_PORT" not in of["flower"]


def test_superuser_password_reaches_postgresql_only(composed: list[Project]) -> None:
    for project in composed:
        admin, role = project.env["POSTGRES_ADMIN_PASSWORD"], project.env["POSTGRES_PASSWORD"]
        assert admin != role
        of = {name: str(service.get("environment", {})) for name, service in project.compose["services"].items()}
        assert [name for name, text in of.items() if admin in text] == ["db"], project.variant.id
        with_role = {"db", "backend", "worker", "test"}
        if project.variant["result_backend"] == "database":
            with_role.add("flower")
        assert {name for name, text in of.items() if role in text} == with_role, project.variant.id


def test_variables_of_the_example_are_all_used(composed: list[Project]) -> None:
    for project in composed:
        compose = project.files["docker-compose.yml"] + project.files.get("docker-compose.prod.yml", "")
        assert [name for name in project.env if f"${{{name}" not in compose] == [], project.variant.id


def test_owner_variables_reach_the_services_built_from_backend(composed: list[Project], tmp_path: Path) -> None:
    """Their block is away from lines that answers change, so that updates do not conflict with it."""
    for project in composed:
        text = project.files["docker-compose.yml"]
        file = tmp_path / "docker-compose.yml"
        file.write_text(text.replace("&environment {}", "&environment\n  MAIL_HOST: mail"), encoding="utf-8")
        options = ["--env-file", str(project.path / ".env"), "--file", str(file), "--profile", "*"]
        parsed = json.loads(project.run("docker", "compose", *options, "config", "--format", "json").stdout)
        for name in {*OWN_SERVICES, "test"}:
            assert parsed["services"][name]["environment"]["MAIL_HOST"] == "mail", project.variant.id
        assert "MAIL_HOST" not in parsed["services"]["db"]["environment"]


def test_broker_definitions_contain_no_users(projects: list[Project]) -> None:
    """Users come from .env. The topology is a plain file, which a restart of the broker applies."""
    definitions = {project.files["rabbitmq/definitions.json"] for project in projects}
    assert len(definitions) == 1
    assert set(json.loads(definitions.pop())) == {"exchanges", "queues", "bindings", "policies"}
