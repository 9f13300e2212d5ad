"""docker-compose.yml, as compose itself reads it."""

import shutil

import pytest

OURS = {"backend", "worker", "flower"}

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is not installed")


@pytest.fixture(scope="session")
def composed(distinct):
    return list(distinct(lambda path: path in {"docker-compose.yml", ".env.example"}))


def test_services_and_volumes_are_just_those_that_the_answers_call_for(composed):
    for project in composed:
        services = {"db", "rabbitmq", "test"} | OURS
        volumes = {"db-data", "rabbitmq-data"}
        if project.variant["result_backend"] == "redis":
            services.add("redis")
            volumes.add("redis-data")
        if project.variant["flower_persistence"]:
            volumes.add("flower-data")
        assert set(project.compose["services"]) == services, project.variant.id
        assert set(project.compose["volumes"]) == volumes, project.variant.id


def test_ports_are_open_on_this_machine_only(composed):
    for project in composed:
        ports = [port for service in project.compose["services"].values() for port in service.get("ports", [])]
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}, project.variant.id
        assert {int(port["published"]) for port in ports} == {5432, 5672, 15672, 8060, 5555}, project.variant.id


def test_every_service_is_healthy_limited_and_restarts_by_itself(composed):
    for project in composed:
        for name, service in project.compose["services"].items():
            where = f"{project.variant.id}: {name}"
            if name == "test":
                continue
            assert service["healthcheck"]["test"], where
            assert int(service["mem_limit"]) > 0, where
            assert service["restart"] == "unless-stopped", where


def test_our_own_services_run_without_rights_from_one_image(composed):
    for project in composed:
        services = [project.compose["services"][name] for name in sorted(OURS)]
        assert len({service["image"] for service in services}) == 1
        for service in services:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["init"] is True


def test_our_own_services_get_the_same_variables_and_flower_its_own(composed):
    for project in composed:
        of = {name: set(project.compose["services"][name]["environment"]) for name in OURS}
        assert of["backend"] == of["worker"], project.variant.id
        assert {name for name in of["flower"] - of["backend"] if not name.startswith("FLOWER_")} == set()
        assert "FLOWER_PORT" not in of["flower"]


def test_every_variable_of_the_example_is_used(composed):
    for project in composed:
        compose = project.files["docker-compose.yml"]
        assert [name for name in project.env if f"${{{name}" not in compose] == [], project.variant.id
