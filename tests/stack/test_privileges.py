"""Least privilege: the database role, the broker user, Flower's variables, and logs without arguments."""

import json
from typing import Any

import psycopg
import pytest

from tests.stack.conftest import Stack, wait_until
from tests.variants import BACKENDS

# Redis changes no privilege: with it, as with RPC, Flower does not use the database.
VARIANTS = [variant for variant in BACKENDS if variant["result_backend"] != "redis"]


def connect(stack: Stack, database: str, *, admin: bool = False) -> psycopg.Connection[Any]:
    """Return a session of the application's role, or of the superuser."""
    env = stack.project.env
    user, password = env["POSTGRES_USER"], env["POSTGRES_PASSWORD"]
    if admin:
        user, password = "postgres", env["POSTGRES_ADMIN_PASSWORD"]
    return psycopg.connect(host="localhost", user=user, password=password, dbname=database, autocommit=True)


def test_database_role_owns_its_schema_and_nothing_else(stack: Stack) -> None:
    with connect(stack, stack.project.env["POSTGRES_DB"]) as session:
        for statement in (
            "CREATE ROLE another",
            "CREATE DATABASE another",
            "CREATE SCHEMA another",
            "CREATE EXTENSION pg_trgm",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "SELECT * FROM pg_authid",
            "COPY (SELECT 1) TO '/tmp/file'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
        owned = "SELECT nspname FROM pg_namespace WHERE nspowner = current_user::regrole"
        assert session.execute(owned).fetchall() == [("public",)]
        databases = "SELECT datname FROM pg_database WHERE datdba = current_user::regrole"
        assert session.execute(databases).fetchall() == []
        attributes = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
        assert session.execute(f"{attributes} WHERE rolname = current_user").fetchall() == [(False,) * 5]


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_database_role_connects_to_its_own_database_only(stack: Stack, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(stack, database)


def test_database_role_may_end_its_own_sessions_only(stack: Stack) -> None:
    database = stack.project.env["POSTGRES_DB"]
    end = "SELECT pg_terminate_backend(%s)"
    with connect(stack, database) as session:
        other, admins = connect(stack, database), connect(stack, database, admin=True)
        assert session.execute("SELECT count(*) > 0 FROM pg_locks").fetchone() == (True,)
        assert session.execute(end, (other.info.backend_pid,)).fetchone() == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(end, (admins.info.backend_pid,))
        other.close()
        admins.close()


def test_broker_user_reads_queues_but_cannot_administer(stack: Stack) -> None:
    names = {queue["name"] for queue in stack.broker.get("/queues/%2F").json()}
    assert {"celery", "dead-letters"} <= names
    for path in ("/users", "/policies/%2F/tasks", "/vhosts/another"):
        response = stack.broker.put(path, json={}) if path != "/users" else stack.broker.get(path)
        assert response.status_code in {401, 403}, path
    wait_until(lambda: stack.flower.get("/api/queues/length").json()["active_queues"], 20, "Flower to list the queues")


def test_flower_receives_only_the_credentials_that_it_uses(stack: Stack) -> None:
    lines = stack.compose("exec", "-T", "flower", "env").splitlines()
    env = dict(line.partition("=")[::2] for line in lines)
    assert not [name for name in env if name.startswith("POSTGRES_")]
    password = stack.project.env["POSTGRES_PASSWORD"]
    expected = ["CELERY_RESULT_BACKEND"] if stack.variant["result_backend"] == "database" else []
    assert [name for name, value in env.items() if password in value] == expected
    assert stack.project.env["POSTGRES_ADMIN_PASSWORD"] not in "".join(lines)


@pytest.mark.parametrize("command", ["python -m app.main", "celery --app=app.celery_app worker"])
def test_missing_variable_stops_a_service_with_one_line(stack: Stack, command: str) -> None:
    script = f"env -u POSTGRES_USER timeout 20 {command} 2>&1; echo $?"
    output = stack.compose("run", "--rm", "--no-deps", "backend", "sh", "-c", script)
    assert output.splitlines() == ["POSTGRES_USER: Field required (set it in .env)", "1"]


def test_logs_contain_no_arguments(stack: Stack) -> None:
    """Check successful runs, a call with an invalid argument, and rejected messages."""
    number, text = "73194682", "an-unusual-argument"
    ids = [stack.enqueue("add", x=number, y=0)]
    assert stack.api.post("/tasks/add", params={"x": text, "y": 1}).status_code == 422
    applied = stack.flower.post("/api/task/async-apply/add", json={"kwargs": {"x": number, "y": 0}})
    assert applied.status_code == 200
    code = f"""
from app.celery_app import celery_app as c
c.send_task("nonesuch", kwargs={{"x": "{text}"}})
print(c.send_task("add", kwargs={{"x": "{text}", "y": 1}}, ignore_result=True).id)
"""
    ids.append(stack.compose("exec", "-T", "backend", "python", "-c", code).split()[-1])
    for properties in ({}, {"content_type": "application/json", "content_encoding": "utf-8"}):
        garbage = {"properties": properties, "routing_key": "celery", "payload": text, "payload_encoding": "string"}
        published = stack.broker.post("/exchanges/%2F/celery/publish", content=json.dumps(garbage))
        assert published.json() == {"routed": True}
    wait_until(lambda: stack.api.get(f"/tasks/{ids[-1]}").status_code == 200, 20, "the invalid call to be recorded")
    assert [stack.wait_for_end(task_id, timeout=60)["state"] for task_id in ids] == ["SUCCESS", "FAILURE"]
    for report in ("unknown task", "unknown message", "undecodable message"):
        wait_until(lambda: report in stack.compose("logs", "worker"), 20, f"{report} to be logged")  # noqa: B023
    log = stack.compose("logs")
    assert [line for line in log.splitlines() if number in line or text in line] == []
    assert ids[0] in log
