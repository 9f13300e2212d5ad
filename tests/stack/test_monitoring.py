"""Metrics, alerts and the queries of the dashboard, with Prometheus; a stand-in listens on Grafana's port."""

import contextlib
import json
import math
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.stack.conftest import Stack, wait_until
from tests.variants import EVERYTHING

VARIANTS = [EVERYTHING]
RULES = "monitoring/alerts.yml"
RENDERED_RULES = "monitoring/rendered.yml"
CONFIGURATION = "monitoring/prometheus.yml"
FAIRLY_SOON = 60  # seconds
SCHEDULE = '''"""A schedule whose tick can be late."""

from app.core.tasks import every, schedule
from app.features.demo.tasks import add

schedule(add, every(3600), name="hourly", arguments={"x": 1, "y": 1})
'''


@pytest.fixture(scope="module")
def monitored(deployed: Stack) -> Iterator[Stack]:
    """Add a schedule, shorten the intervals and the alerts' delays, and keep everything else."""
    folder = deployed.project.path
    changes: dict[str, Callable[[str], str]] = {
        CONFIGURATION: lambda text: text.replace("_interval: 15s", "_interval: 1s"),
        RULES: lambda text: re.sub(r"for: \d+m", "for: 0s", text),
    }
    before = {path: (folder / path).read_text(encoding="utf-8") for path in changes}
    (folder / RENDERED_RULES).write_text(before[RULES], encoding="utf-8")
    for path, change in changes.items():
        changed = change(before[path])
        assert changed != before[path]
        (folder / path).write_text(changed, encoding="utf-8")
    schedule = folder / "backend" / "app" / "features" / "demo" / "schedule.py"
    schedule.write_text(SCHEDULE, encoding="utf-8")
    deployed.up("--build")
    deployed.compose("restart", "prometheus")
    deployed.up()
    yield deployed
    for path, text in before.items():
        (folder / path).write_text(text, encoding="utf-8")
    schedule.unlink()
    deployed.up("--build")
    deployed.compose("restart", "prometheus")


@pytest.fixture(scope="module")
def prometheus(monitored: Stack) -> Iterator[httpx2.Client]:
    """Return a client of Prometheus, once there are runs of each kind."""
    monitored.wait_for_end(monitored.enqueue("add", x=1, y=1))
    monitored.wait_for_end(monitored.enqueue("fail", reason="for the metrics"))
    monitored.enqueue("slow", duration=60)
    with httpx2.Client(base_url="http://localhost:9090/api/v1", timeout=20) as client:
        yield client


def sql(stack: Stack, *statements: str) -> str:
    """Execute statements as PostgreSQL's superuser, each in its own transaction."""
    options = [part for statement in statements for part in ("-c", statement)]
    return stack.compose("exec", "-T", "db", "psql", "--quiet", "--username=postgres", "--dbname=app", *options)


def results(prometheus: httpx2.Client, query: str) -> list[float]:
    """Return the values of a query."""
    response = prometheus.get("/query", params={"query": query})
    assert response.status_code == 200, f"{query}: {response.text}"
    return [float(each["value"][1]) for each in response.json()["data"]["result"]]


def firing(prometheus: httpx2.Client) -> set[str]:
    """Return the names of the alerts that fire."""
    alerts = prometheus.get("/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def test_targets_are_up(prometheus: httpx2.Client) -> None:
    def health() -> dict[str, str]:
        targets = prometheus.get("/targets").json()["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    expected = dict.fromkeys(("backend", "flower", "rabbitmq", "rabbitmq-queues"), "up")
    wait_until(lambda: health() == expected, 30, "every target to be up")


def test_queries_of_the_dashboard_all_return_data(monitored: Stack, prometheus: httpx2.Client) -> None:
    dashboard = json.loads(monitored.project.files["monitoring/grafana/dashboards/service.json"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 15

    def without_data() -> list[str]:
        monitored.enqueue("add", x=1, y=1)  # a rate needs an increase
        return [query for query in queries if not any(math.isfinite(value) for value in results(prometheus, query))]

    wait_until(lambda: without_data() == [], 90, "data of every query")


def test_series_of_the_alerts_all_exist(monitored: Stack, prometheus: httpx2.Client) -> None:
    (group,) = yaml.safe_load(monitored.project.files[RULES])["groups"]
    selectors = {
        selector
        for rule in group["rules"]
        for selector in re.findall(r"\b(?:up|app_\w+|rabbitmq_\w+)(?:\{[^}]*\})?", rule["expr"])
    }
    assert len(selectors) > 10

    def missing() -> list[str]:
        return [each for each in selectors if not results(prometheus, f"count({each})")]

    wait_until(lambda: missing() == [], 30, "every series")


def test_files_pass_promtool(monitored: Stack) -> None:
    folder = monitored.project.path / "monitoring"
    (group,) = yaml.safe_load((monitored.project.path / RENDERED_RULES).read_text(encoding="utf-8"))["groups"]
    delayed = [fires_after_its_delay(rule) for rule in group["rules"] if "for" in rule]
    tests = {"rule_files": [Path(RENDERED_RULES).name], "tests": [*SILENT, *delayed]}
    (folder / "alerts_test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    mount = f"{folder}:/etc/prometheus:ro"
    image = str(monitored.project.compose["services"]["prometheus"]["image"])
    promtool = ("docker", "run", "--rm", "--volume", mount, "--entrypoint", "promtool", image)
    monitored.project.run(*promtool, "check", "config", "/etc/prometheus/prometheus.yml")
    monitored.project.run(*promtool, "test", "rules", "/etc/prometheus/alerts_test.yml")


def values(series: str, text: str) -> dict[str, str]:
    """Return the values of a series, one per minute."""
    return {"series": series, "values": text}


def silent(alert: str, series: list[dict[str, str]], time: str = "20m") -> dict[str, Any]:
    """Return a test of promtool: at this time of these series the alert does not fire."""
    return {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": time, "alertname": alert, "exp_alerts": []}],
    }


SILENT = [
    silent("ManyRunsFail", [values('app_runs_ended_10m{task="a",state="FAILURE"}', "5x20")]),
    silent(
        "ManyRunsFail",
        [
            values('app_runs_ended_10m{task="a",state="FAILURE"}', "50x20"),
            values('app_runs_ended_10m{task="a",state="SUCCESS"}', "950x20"),
        ],
    ),
    silent("DiskFillsUp", [values("rabbitmq_disk_space_available_bytes", "9000000000x20")]),
    silent(  # a deploy writes 4 GB within ten minutes
        "DiskFillsUp",
        [values("rabbitmq_disk_space_available_bytes", "24000000000-400000000x10 20000000000x50")],
        time="1h",
    ),
    silent(
        "DatabaseConnections",
        [values("app_database_connections", "70x20"), values("app_database_connections_limit", "97x20")],
    ),
    silent("QueueHasNoConsumer", [values('rabbitmq_detailed_queue_consumers{queue="dead-letters"}', "0x20")]),
]
"""Values at which no alert may fire; the other tests make each fire."""

DELAYED: dict[str, tuple[dict[str, str], list[dict[str, str]]]] = {
    "TargetDown": ({"job": "flower"}, [values('up{job="flower"}', "0x600")]),
    "DatabaseDown": ({}, [values("app_database_up", "0x600")]),
    "QueueHasNoConsumer": (
        {"queue": "default"},
        [values('rabbitmq_detailed_queue_consumers{queue="default"}', "0x600")],
    ),
    "QueueDoesNotDrain": (
        {"queue": "default"},
        [
            values('rabbitmq_detailed_queue_messages_ready{queue="default"}', "1000x600"),
            values('rabbitmq_detailed_queue_messages_acked_total{queue="default"}', "0+60x600"),
        ],
    ),
    "TaskOnlyFails": (
        {"task": "a", "state": "FAILURE"},
        [
            values('app_runs_ended_10m{task="a",state="FAILURE"}', "1x600"),
            values('app_runs_ended_10m{task="b",state="SUCCESS"}', "9x600"),
        ],
    ),
    "RelayBehind": ({}, [values("app_outbox_oldest_seconds", "61x600")]),
    "DiskFillsUp": ({}, [values("rabbitmq_disk_space_available_bytes", "4900000000x600")]),
    "DatabaseConnections": (
        {},
        [values("app_database_connections", "80x600"), values("app_database_connections_limit", "97x600")],
    ),
}
"""For each alert with a delay its labels, and series of which it is true from the first minute on."""


def fires_after_its_delay(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a test of promtool: an alert waits for its delay, and then fires with its labels and its text."""
    labels, series = DELAYED[rule["alert"]]
    summary = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], rule["annotations"]["summary"])
    fired = {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": {"summary": summary}}
    minutes = int(rule["for"].removesuffix("m"))
    # A rate needs two values: it is known from the second minute on.
    first = 1 if "rate(" in rule["expr"] else 0
    test = silent(rule["alert"], series, time=f"{first + minutes - 1}m")
    test["alert_rule_test"].append(
        {"eval_time": f"{first + minutes}m", "alertname": rule["alert"], "exp_alerts": [fired]}
    )
    return test


@pytest.mark.usefixtures("monitored")
def test_metrics_are_not_published() -> None:
    for port in (9464, 5556, 15692):
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=2):
            pass


def test_requests_of_all_processes_are_counted(monitored: Stack, prometheus: httpx2.Client) -> None:
    monitored.up(BACKEND_PROCESSES="3")
    query = 'sum(http_server_request_duration_seconds_count{http_route="/tasks/{task_id}"})'
    for _ in range(60):
        with httpx2.Client() as client:  # its own connection, for any of the processes
            assert client.get("http://localhost:8060/tasks/unknown").status_code == 404
    wait_until(lambda: results(prometheus, query) == [60], 20, "60 requests to be counted")
    monitored.up()


@contextlib.contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    """Stop a service for the time of a block."""
    stack.compose("stop", service)
    try:
        yield
    finally:
        stack.up()


@contextlib.contextmanager
def slow_backlog(stack: Stack) -> Iterator[None]:
    """Enqueue more work than two processes do in ten minutes, and revoke it."""
    for _ in range(1000):
        stack.enqueue("slow", duration=60)
    try:
        yield
    finally:
        revoke = partial(stack.api.post, "/tasks/revoke", params={"name": "slow"})
        wait_until(lambda: revoke().json()["remaining"] == 0, 60, "all runs to be revoked")


@contextlib.contextmanager
def dead_letter(stack: Stack) -> Iterator[None]:
    """Send a message of an unknown task, and purge the dead-letter queue."""
    code = "from app.celery_app import celery_app; celery_app.send_task('unknown')"
    stack.compose("exec", "-T", "backend", "python", "-c", code)
    try:
        yield
    finally:
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "purge_queue", "dead-letters")


@contextlib.contextmanager
def failures(stack: Stack) -> Iterator[None]:
    """Fail more often than succeed; afterwards, let ten minutes pass by moving the ends back."""
    for _ in range(40):
        last = stack.enqueue("fail", reason="for the alert")
    stack.wait_for_end(last)
    try:
        yield
    finally:
        sql(stack, "UPDATE task_runs SET ended_at = ended_at - interval '1 hour'")


@contextlib.contextmanager
def unsent_message(stack: Stack) -> Iterator[None]:
    """Stop the broker while a message has been due for five minutes."""
    with stopped(stack, "rabbitmq"):
        stack.enqueue("add", x=1, y=1)
        sql(stack, "UPDATE task_runs SET accepted_at = now() - interval '5 minutes' WHERE outbox_action = 'publish'")
        yield


@contextlib.contextmanager
def attached(stack: Stack, *command: str, text: str = "") -> Iterator[None]:
    """Run a command in a container for the time of a block; it ends when its input does."""
    full = ("docker", "compose", "exec", "-T", *command)
    with subprocess.Popen(
        full, cwd=stack.project.path, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin
        process.stdin.write(text)
        process.stdin.flush()
        try:
            yield
        finally:
            process.communicate(timeout=30)


@contextlib.contextmanager
def locked_schedule(stack: Stack) -> Iterator[None]:
    """Lock the row of a schedule that is an hour late."""
    late = "UPDATE schedules SET next_tick = now() - interval '1 hour'"
    lock = "SELECT 1 FROM schedules FOR UPDATE"
    text = f"{late} \\; COMMIT \\; BEGIN \\; {lock};\n"  # in one message, so that no relay takes the tick in between
    with attached(stack, "db", "psql", "--username=postgres", "--dbname=app", text=text):
        yield


@contextlib.contextmanager
def low_memory(stack: Stack) -> Iterator[None]:
    """Set the broker's memory limit below what it uses."""
    control = ("exec", "-T", "rabbitmq", "rabbitmqctl", "set_vm_memory_high_watermark")
    stack.compose(*control, "absolute", "1MB")
    try:
        yield
    finally:
        stack.compose(*control, "0.6")


@contextlib.contextmanager
def small_disk(stack: Stack) -> Iterator[None]:
    """Keep the broker's data on a disk of 1 GB."""
    overlay = stack.project.path / "small-disk.yml"
    disk = {"type": "tmpfs", "target": "/var/lib/rabbitmq", "tmpfs": {"size": "1g", "mode": 0o777}}
    overlay.write_text(yaml.safe_dump({"services": {"rabbitmq": {"volumes": [disk]}}}), encoding="utf-8")
    remove = ("rm", "--stop", "--force", "rabbitmq")  # a recreated container would keep its volume
    stack.compose(*remove)
    stack.compose("-f", "docker-compose.yml", "-f", overlay.name, "up", "--wait", "--no-deps", "rabbitmq")
    try:
        yield
    finally:
        overlay.unlink()
        stack.compose(*remove)
        stack.up()


@contextlib.contextmanager
def many_connections(stack: Stack) -> Iterator[None]:
    """Open 72 connections to PostgreSQL."""
    code = (
        "import psycopg, os, sys; address = dict(host=os.environ['POSTGRES_HOST'], user=os.environ['POSTGRES_USER'],"
        "password=os.environ['POSTGRES_PASSWORD'], dbname=os.environ['POSTGRES_DB']);"
        "opened = [psycopg.connect(**address) for _ in range(72)]; sys.stdin.read()"
    )
    with attached(stack, "worker", "python", "-c", code):
        yield


FAULTS: dict[str, Callable[[Stack], contextlib.AbstractContextManager[None]]] = {
    "TargetDown": lambda stack: stopped(stack, "flower"),
    "DatabaseDown": lambda stack: stopped(stack, "db"),
    "QueueHasNoConsumer": lambda stack: stopped(stack, "worker"),
    "QueueDoesNotDrain": slow_backlog,
    "DeadLetters": dead_letter,
    "ManyRunsFail": failures,
    "TaskOnlyFails": failures,
    "RelayBehind": unsent_message,
    "ScheduleOverdue": locked_schedule,
    "BrokerAlarm": low_memory,
    "DiskFillsUp": small_disk,
    "DatabaseConnections": many_connections,
}
"""For each alert a fault that makes it fire; the end of the block heals it."""


def test_faults_cover_every_alert(monitored: Stack) -> None:
    (group,) = yaml.safe_load(monitored.project.files[RULES])["groups"]
    assert [rule["alert"] for rule in group["rules"]] == list(FAULTS)


@pytest.mark.parametrize("alert", FAULTS)
def test_alert_fires_and_resolves(monitored: Stack, prometheus: httpx2.Client, alert: str) -> None:
    sql(monitored, "UPDATE task_runs SET ended_at = ended_at - interval '1 hour'")  # failures of earlier tests
    wait_until(lambda: alert not in firing(prometheus), FAIRLY_SOON, f"{alert} to be silent")
    with FAULTS[alert](monitored):
        wait_until(lambda: alert in firing(prometheus), FAIRLY_SOON, f"{alert} to fire")
    wait_until(lambda: alert not in firing(prometheus), FAIRLY_SOON, f"{alert} to resolve")


def test_readme_shows_the_alerts(monitored: Stack) -> None:
    assert "curl -sS --fail-with-body http://localhost:9090/api/v1/alerts" in monitored.project.files["README.md"]
    assert json.loads(
        monitored.project.run("curl", "-sS", "--fail-with-body", "http://localhost:9090/api/v1/alerts").stdout
    )
