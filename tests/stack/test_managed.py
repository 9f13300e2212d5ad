"""Managed PostgreSQL and RabbitMQ, as the README says: other addresses, TLS only, and a virtual host."""

import re
from collections.abc import Iterator

import pytest
import trustme
import yaml

from tests.project import code_blocks
from tests.stack.conftest import Stack, wait_until
from tests.variants import BACKENDS

VARIANTS = [each for each in BACKENDS if each["result_backend"] == "database"]
CLIENTS = ("backend", "worker", "flower")
VIRTUAL_HOST = "shop"
BROKER_CONF = """
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = /certificates/ca.pem
ssl_options.certfile = /certificates/rabbitmq.pem
ssl_options.keyfile = /certificates/rabbitmq.key
management.ssl.port = 15671
management.ssl.cacertfile = /certificates/ca.pem
management.ssl.certfile = /certificates/rabbitmq.pem
management.ssl.keyfile = /certificates/rabbitmq.key
definitions.import_backend = local_filesystem
definitions.local.path = /etc/rabbitmq/definitions.d
"""
POSTGRES = (
    "install --owner=postgres --mode=600 /certificates/db.key /tmp/db.key && exec docker-entrypoint.sh postgres"
    " -c ssl=on -c ssl_cert_file=/certificates/db.pem -c ssl_key_file=/tmp/db.key"
)


def servers(stack: Stack) -> str:
    """Write the certificates of two servers in containers; return a Compose file that adds both."""
    folder = stack.project.path / "certificates"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("db", "rabbitmq"):
        issued = authority.issue_cert(f"{name}.example.com")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o644)  # the broker's user reads it
    topology = (stack.project.path / "rabbitmq" / "definitions.json").read_text(encoding="utf-8")
    (folder / "topology.json").write_text(topology.replace('"/"', f'"{VIRTUAL_HOST}"'), encoding="utf-8")
    before = stack.project.compose
    user = before["configs"]["rabbitmq-user"]["content"].replace('"/"', f'"{VIRTUAL_HOST}"')
    certificates = "./certificates:/certificates:ro"
    db, rabbitmq = before["services"]["db"], before["services"]["rabbitmq"]
    client = {
        "volumes": [certificates],
        "environment": {
            "RABBITMQ_VHOST": VIRTUAL_HOST,
            "PGSSLROOTCERT": "/certificates/ca.pem",
            "SSL_CERT_FILE": "/certificates/ca.pem",
        },
        "depends_on": {name: {"condition": "service_healthy"} for name in ("managed-db", "managed-rabbitmq")},
    }
    return yaml.safe_dump(
        {
            "services": {
                "managed-db": {
                    "image": db["image"],
                    "entrypoint": ["bash", "-c", POSTGRES],
                    "environment": db["environment"],
                    "volumes": [certificates, "./db/role.sql:/docker-entrypoint-initdb.d/10-role.sql:ro"],
                    "healthcheck": db["healthcheck"],
                    "networks": {"default": {"aliases": ["db.example.com"]}},
                },
                "managed-rabbitmq": {
                    "image": rabbitmq["image"],
                    "volumes": [certificates, "./certificates/topology.json:/etc/rabbitmq/definitions.d/20.json:ro"],
                    "configs": [
                        {"source": "managed-conf", "target": "/etc/rabbitmq/conf.d/20.conf"},
                        {"source": "managed-user", "target": "/etc/rabbitmq/definitions.d/10.json"},
                    ],
                    "healthcheck": {
                        **rabbitmq["healthcheck"],
                        "test": ["CMD", "rabbitmq-diagnostics", "check_running"],
                        "timeout": "30s",
                    },
                    "networks": {"default": {"aliases": ["rabbitmq.example.com"]}},
                },
                **dict.fromkeys(CLIENTS, client),
            },
            "configs": {"managed-conf": {"content": BROKER_CONF}, "managed-user": {"content": user}},
        }
    )


@pytest.fixture(scope="module")
def managed(deployed: Stack) -> Iterator[Stack]:
    """Restart the services with managed servers."""
    (section,) = re.findall(r"^### Managed.*?(?=^## )", deployed.project.files["README.md"], re.M | re.S)
    (file,), (lines,) = code_blocks(section, "yaml"), code_blocks(section, "text")
    folder = deployed.project.path
    deployed.down()
    (folder / "docker-compose.managed.yml").write_text(file, encoding="utf-8")
    (folder / "servers.yml").write_text(servers(deployed), encoding="utf-8")
    before = (folder / ".env").read_text(encoding="utf-8")
    with_servers = lines.replace("docker-compose.managed.yml", "docker-compose.managed.yml,servers.yml")
    (folder / ".env").write_text(before + with_servers, encoding="utf-8")
    deployed.up()
    yield deployed
    deployed.down()
    (folder / ".env").write_text(before, encoding="utf-8")


def test_servers_of_the_project_do_not_run(managed: Stack) -> None:
    assert set(managed.health()) == {*CLIENTS, "managed-db", "managed-rabbitmq"}


def test_task_is_executed_and_shown(managed: Stack) -> None:
    assert managed.api.get("/health/ready").json()["status"] == "ok"
    task_id = managed.enqueue("add", x=2, y=3)
    assert managed.wait_for_end(task_id)["result"] == 5
    assert managed.wait_for_flower(task_id, "SUCCESS")["worker"].startswith("worker@")


def test_flower_reads_the_queues(managed: Stack) -> None:
    def names() -> set[str]:
        return {queue["name"] for queue in managed.flower.get("/api/queues/length").json()["active_queues"]}

    wait_until(lambda: "celery" in names(), 20, "Flower to show the queue")


def test_connections_to_the_database_are_encrypted(managed: Stack) -> None:
    query = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    psql = ("psql", "--tuples-only", "--no-align", "--username=postgres", f"--command={query}")
    assert managed.compose("exec", "-T", "managed-db", *psql).split() == ["t"]


@pytest.mark.parametrize(
    ("variable", "server", "code"),
    [
        (
            "RABBITMQ_HOST",
            "managed-rabbitmq",
            "from app.celery_app import celery_app; celery_app.connection_for_write().connect()",
        ),
        (
            "RABBITMQ_HOST",
            "managed-rabbitmq",
            "import asyncio, aio_pika; from app.core.settings import settings;"
            "asyncio.run(aio_pika.connect(settings().broker_url))",
        ),
        (
            "POSTGRES_HOST",
            "managed-db",
            "import sqlalchemy; from app.core.settings import settings;"
            "sqlalchemy.create_engine(settings().database_url).connect()",
        ),
    ],
    ids=["Celery", "relay", "database"],
)
def test_certificate_of_another_host_is_refused(managed: Stack, variable: str, server: str, code: str) -> None:
    command = ("exec", "-T", "backend", "python", "-c", code)
    managed.compose(*command)
    with pytest.raises(AssertionError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|does not match"):
        managed.compose("exec", "-T", "--env", f"{variable}={server}", "backend", "python", "-c", code)
