"""Metrics of requests, and metrics without PostgreSQL."""

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY, CollectorRegistry
from sqlalchemy import create_engine

from app.main import create_app
from app.metrics import FromDatabase

COUNT = "http_server_request_duration_seconds_count"


def count(method: str, route: str, status: int) -> float:
    """Return the number of requests with these labels."""
    labels = {"http_request_method": method, "http_route": route, "http_response_status_code": str(status)}
    return REGISTRY.get_sample_value(COUNT, labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/health/live", "/health/live", 200),
        ("GET", "/no/such/path", "", 404),
    ],
)
def test_requests_are_counted_by_path_template_and_status(method: str, path: str, route: str, status: int) -> None:
    client = TestClient(create_app(), base_url="http://localhost")
    before = count(method, route, status)
    assert client.request(method, path).status_code == status
    assert count(method, route, status) == before + 1


def test_metrics_report_unavailable_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = create_engine("postgresql+psycopg://app@localhost:1/app")  # nothing listens there
    monkeypatch.setattr("app.metrics.autocommit_engine", lambda: nowhere)
    registry = CollectorRegistry()
    registry.register(FromDatabase())
    assert {metric.name: metric.samples[0].value for metric in registry.collect()} == {"app_database_up": 0}
