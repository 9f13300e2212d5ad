"""Traces: one for each run, from the request through the relay and the broker to the statements of its attempts."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from tests.stack.conftest import Stack, wait_until
from tests.variants import Variant

VARIANTS = [Variant.of()]
RUNS = 100
SERVER, PRODUCER, CONSUMER, ERROR = 2, 4, 5, 2  # https://github.com/open-telemetry/opentelemetry-proto

COLLECTOR = """
import gzip
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {each.key: each.value.string_value for each in span.attributes}
                    ids = {"trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex()}
                    own = {"name": span.name, "kind": span.kind, "status": span.status.code}
                    SPANS.append({"service": service, **own, **ids, **attributes})
        self.answer(b"")

    def do_GET(self):
        self.answer(json.dumps(SPANS).encode())

    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", 4318), Handler).serve_forever()
"""

OVERRIDE = {
    "services": {
        "collector": {
            "image": "flowerpot-stack-backend",
            "pull_policy": "never",
            "command": ["python", "/srv/collector.py"],
            "volumes": ["./collector.py:/srv/collector.py:ro"],
            "ports": ["127.0.0.1:4318:4318"],
            "healthcheck": {
                "test": ["CMD", "python", "-S", "healthcheck.py", "http", "4318", "/"],
                "start_period": "20s",
                "start_interval": "1s",
            },
        }
    }
}


@pytest.fixture(scope="module")
def traced(deployed: Stack) -> Iterator[Stack]:
    """Send the traces to a collector."""
    folder = deployed.project.path
    env = folder / ".env"
    before = env.read_text(encoding="utf-8")
    changed = re.sub(r"^OTEL_EXPORTER_OTLP_ENDPOINT=$", r"\g<0>http://collector:4318", before, flags=re.M)
    assert changed != before
    env.write_text(changed, encoding="utf-8")
    added = {"collector.py": COLLECTOR, "docker-compose.override.yml": yaml.safe_dump(OVERRIDE)}
    for name, text in added.items():
        (folder / name).write_text(text, encoding="utf-8")
    deployed.up()
    yield deployed
    env.write_text(before, encoding="utf-8")
    for name in added:
        (folder / name).unlink()
    deployed.up("--remove-orphans")


def spans() -> list[dict[str, Any]]:
    """Return every span that the collector has received."""
    received: list[dict[str, Any]] = httpx2.get("http://localhost:4318/").json()
    return received


def of_run(run_id: str, received: list[dict[str, Any]], kind: int) -> list[dict[str, Any]]:
    """Return the spans of a kind that belong to a run."""
    return [span for span in received if span["kind"] == kind and span.get("messaging.message.id") == run_id]


def test_each_run_has_one_trace_over_retries_and_a_restart_of_the_relay(traced: Stack) -> None:
    traced.compose("stop", "rabbitmq")
    ids = [traced.enqueue("flaky") for _ in range(RUNS)]
    requests = "POST /tasks/flaky"
    wait_until(lambda: sum(span["name"] == requests for span in spans()) >= RUNS, 30, "the spans of the requests")
    traced.compose("restart", "backend")
    traced.up()
    attempts = {each: traced.wait_for_end(each, timeout=120)["attempts"] for each in ids}
    assert set(attempts.values()) == {3}

    def are_complete() -> bool:
        received = spans()
        for each, number in attempts.items():
            published, executed = of_run(each, received, PRODUCER), of_run(each, received, CONSUMER)
            parents = {span["parent"] for span in executed}
            if len(executed) < number or not parents <= {span["id"] for span in published}:
                return False
        return True

    wait_until(are_complete, 60, "the spans of every attempt")
    received = spans()
    by_id = {span["id"]: span for span in received}
    children = defaultdict(list)
    for span in received:
        children[span["parent"]].append(span)
    traces = set()
    for each in ids:
        published, executed = of_run(each, received, PRODUCER), of_run(each, received, CONSUMER)
        (trace,) = {span["trace"] for span in [*published, *executed]}
        traces.add(trace)
        assert {by_id[span["parent"]]["name"] for span in published} == {requests}
        assert {span["parent"] for span in executed} <= {span["id"] for span in published}, "one may have failed"
        assert {span["service"] for span in published} == {"backend"}
        assert {span["service"] for span in executed} == {"worker"}
        statements = [span["name"] for attempt in executed for span in children[attempt["id"]]]
        assert len(statements) >= 2 * attempts[each], statements
        assert set(statements) <= {"INSERT", "UPDATE", "SELECT", "WITH"}
    assert len(traces) == RUNS
    assert [span for span in received if not span["parent"] and span["kind"] != SERVER] == []


def test_trace_of_the_client_is_continued(traced: Stack) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    run = traced.api.post("/tasks/add", params={"x": 98765432, "y": 1, "wait": 10}, headers=headers).json()
    wait_until(lambda: of_run(run["task_id"], spans(), CONSUMER), 30, "the span of the run")
    assert {span["trace"] for span in of_run(run["task_id"], spans(), CONSUMER)} == {trace}
    wait_until(
        lambda: [each for each in spans() if each["kind"] == SERVER and each["trace"] == trace], 30, "the request"
    )
    assert "98765432" not in json.dumps(spans()), "an argument"


def test_failed_run_is_an_error_and_probes_have_no_span(traced: Stack) -> None:
    traced.api.get("/health/ready")
    run = traced.api.post("/tasks/fail", params={"wait": 10}).json()
    wait_until(lambda: of_run(run["task_id"], spans(), CONSUMER), 30, "the span of the run")
    assert [span["status"] for span in of_run(run["task_id"], spans(), CONSUMER)] == [ERROR]
    assert [span for span in spans() if "health" in span["name"]] == []


def test_nothing_is_imported_without_an_endpoint(stack: Stack) -> None:
    """Not in the traced services: these are started without an endpoint."""
    code = "import sys, app.main, app.celery_app; app.main.create_app(); print('opentelemetry.sdk' in sys.modules)"
    command = ("run", "--rm", "--no-deps", "--env", "OTEL_EXPORTER_OTLP_ENDPOINT=", "backend", "python", "-c", code)
    assert stack.compose(*command).splitlines()[-1] == "False"
