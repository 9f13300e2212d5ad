"""The default project in containers, with the references beside it."""

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.project import Project
from tests.stack.conftest import Stack, wait_until

FOLDER = Path(__file__).parent
PROJECT = ("db", "rabbitmq", "backend", "worker", "flower")
REFERENCES = {
    *("plain-def", "plain-async", "plain-worker", "bare-worker", "empty"),
    *("imports-backend", "imports-worker", "imports-flower"),
    *("dramatiq-worker", "procrastinate-worker", "redis"),
}
OURS = "http://backend:8060"


@dataclass(frozen=True)
class Load:
    """Figures of the load generator; latencies in milliseconds, `started` in seconds since the epoch."""

    count: int
    seconds: float
    p50: float
    p99: float
    errors: int
    started: float

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.count / self.seconds


class Bench(Stack):
    """The services of the default project, a load generator, and the references."""

    def __init__(self, project: Project, *, rounds: int = 5, quick: bool = False) -> None:
        """Add the feature of the benchmarks and the references to a rendered project; `quick` shortens each load."""
        super().__init__(project, FOLDER / "features")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(FOLDER / "reference", project.path / "reference", ignore=ignored)
        self.rounds = rounds
        self.quick = quick

    def compose(self, *arguments: str, **env: str) -> str:
        """Run docker compose with both files."""
        files = ("--file", "docker-compose.yml", "--file", "reference/docker-compose.yml")
        return super().compose(*files, *arguments, **env)

    def build(self) -> None:
        """Build the images, start the project and create the table, database and virtual host of the benchmarks."""
        self.compose("build", "backend", "load")
        self.up(*PROJECT, "load")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS benchmark_orders (id serial PRIMARY KEY, email text NOT NULL)"
        )
        user = self.project.env["POSTGRES_USER"]
        self.database.execute(sql.SQL("ALTER TABLE benchmark_orders OWNER TO {}").format(sql.Identifier(user)))
        self.database.execute(sql.SQL("CREATE DATABASE reference OWNER {}").format(sql.Identifier(user)))
        self.reference.execute("CREATE TABLE marks (at timestamptz NOT NULL DEFAULT clock_timestamp())")
        self.reference.execute(sql.SQL("ALTER TABLE marks OWNER TO {}").format(sql.Identifier(user)))
        self.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "add_vhost", "reference")
        permissions = ("set_permissions", "--vhost", "reference", self.project.env["RABBITMQ_DEFAULT_USER"])
        self.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", *permissions, ".*", ".*", ".*")

    def start(self, *references: str) -> None:
        """Start the project, the load generator and these references; stop the others, unless figures do not matter."""
        health = self.health()
        others = sorted(REFERENCES.difference(references).intersection(health))
        if others and not self.quick:
            self.compose("--profile", "*", "stop", "--timeout", "2", *others)
        if "unhealthy" in health.values():  # it was frozen
            wait_until(lambda: "unhealthy" not in self.health().values(), 60, "services to recover")
        self.up(*PROJECT, "load", *references)

    def load(self, url: str, *, seconds: int, connections: int = 32, method: str = "POST", pause: float = 0) -> Load:
        """Send requests as fast as responses arrive, or with random pauses of a mean of `pause` milliseconds.

        Raises:
            AssertionError: a request failed.
        """
        env = ("--env", f"METHOD={method}", "--env", f"PAUSE={pause}")
        connections = self.connections(connections)
        options = (f"--connections={connections}", "--threads=1", f"--duration={seconds}s", "--timeout=30s")
        output = self.compose("exec", "-T", *env, "load", "wrk", *options, "--script=/reference/load.lua", url)
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
        load = Load(**figures, started=time.time() - figures["seconds"])
        assert load.errors == 0, f"{url}: {load.errors} of {load.count} requests failed"
        return load

    @property
    def image(self) -> str:
        """The image of API, worker and Flower."""
        return f"{self.project.path.name}-backend"

    @cached_property
    def database(self) -> psycopg.Connection:
        """The project's database, as its superuser."""
        return self._connect(self.project.env["POSTGRES_DB"])

    @cached_property
    def reference(self) -> psycopg.Connection:
        """The database of the references."""
        return self._connect("reference")

    def _connect(self, name: str) -> psycopg.Connection:
        password = self.project.env["POSTGRES_ADMIN_PASSWORD"]
        return psycopg.connect(host="localhost", user="postgres", password=password, dbname=name, autocommit=True)

    def row(self, query: str, **values: Any) -> tuple[Any, ...]:
        """Return the row that a query of the project's database selects."""
        found = self.database.execute(query.encode(), values).fetchone()
        assert found is not None
        return found

    def reference_row(self, query: str, **values: Any) -> tuple[Any, ...]:
        """Return the row that a query of the references' database selects."""
        found = self.reference.execute(query.encode(), values).fetchone()
        assert found is not None
        return found

    def wait_for(self, query: str, timeout: float, connection: psycopg.Connection | None = None) -> None:
        """Wait until a query returns true; one on an open connection costs next to nothing."""

        def is_true() -> bool:
            return (connection or self.database).execute(query.encode()).fetchone() == (True,)

        wait_until(is_true, timeout, query)

    def wait_until_ended(self, count: int, timeout: float) -> None:
        """Wait until so many runs have ended, but for a limited time, if at least one has."""
        self.wait_for("SELECT count(ended_at) > 0 FROM task_runs", 60)
        with suppress(AssertionError):
            self.wait_for(f"SELECT count(ended_at) >= {count} FROM task_runs", timeout)

    def wait_until_stored(self, count: int, timeout: float) -> None:
        """Wait until the references have stored so many results, as `wait_until_ended`; Celery creates the table."""
        self.wait_for("SELECT to_regclass('celery_taskmeta') IS NOT NULL", 30, self.reference)
        self.wait_for("SELECT count(*) > 0 FROM celery_taskmeta", 60, self.reference)
        with suppress(AssertionError):
            self.wait_for(f"SELECT count(*) >= {count} FROM celery_taskmeta", timeout, self.reference)

    def seconds(self, normal: int) -> int:
        """Return the duration of a load."""
        return 1 if self.quick else normal

    def connections(self, normal: int) -> int:
        """Return the number of connections of a load."""
        return min(normal, 2) if self.quick else normal

    def number(self, normal: int) -> int:
        """Return the number of rows or tasks of a measurement."""
        return normal // 20 if self.quick else normal

    def processor_seconds(self, service: str, index: int = 1) -> float:
        """Return the processor time that a container has used, by cgroup v2 or v1; asking costs a few milliseconds."""
        files = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpuacct/cpuacct.usage")
        command = f"cat {files[0]} 2> /dev/null || cat {files[1]}"
        words = self.compose("exec", "-T", f"--index={index}", service, "sh", "-c", command).split()
        return int(words[1]) / 1e6 if words[0] == "usage_usec" else int(words[0]) / 1e9

    def inspect_image(self, template: str) -> str:
        """Return the output of `docker image inspect` for the project's image."""
        return self.project.run("docker", "image", "inspect", "--format", template, self.image).stdout

    def image_history(self) -> list[tuple[int, str]]:
        """Return the size in bytes and the instruction of each layer of the project's image, the newest first."""
        options = ("--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}")
        lines = self.project.run("docker", "history", *options, self.image).stdout.splitlines()
        return [(int(size), created) for size, _, created in (line.partition(" ") for line in lines)]

    def clear(self) -> None:
        """Remove all runs and their messages."""
        # The update waits for a batch of the relay. A revoked run is not executed if its message is still delivered.
        self.database.execute("UPDATE task_runs SET state = 'REVOKED', outbox_action = NULL WHERE ended_at IS NULL")
        self._empty("/", "celery")
        self.database.execute("TRUNCATE task_runs")

    def clear_reference(self, queue: str = "celery") -> None:
        """Remove the messages and results of the references."""
        self._empty("reference", queue)
        self.reference.execute("TRUNCATE marks")
        if self.reference.execute("SELECT to_regclass('celery_taskmeta') IS NOT NULL").fetchone() == (True,):
            self.reference.execute("TRUNCATE celery_taskmeta")

    def _empty(self, vhost: str, queue: str) -> None:
        """Purge a queue, and wait until its consumers have acknowledged the messages they hold."""
        control = ("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "--vhost", vhost)

        def is_empty() -> bool:
            self.compose(*control, "purge_queue", queue)
            lines = self.compose(*control, "list_queues", "--no-table-headers", "name", "messages").splitlines()
            return f"{queue}\t0" in lines

        wait_until(is_empty, 60, f"{queue} to be empty")

    def disconnect(self) -> None:
        """Close the connections to the databases; the next query opens them again."""
        for name in ("database", "reference"):
            if connection := vars(self).pop(name, None):
                connection.close()

    def close(self) -> None:
        """Close the clients and connections that were used."""
        self.disconnect()
        super().close()
