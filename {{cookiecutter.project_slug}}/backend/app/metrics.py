"""Prometheus metrics of requests, runs, the relay, schedules and PostgreSQL, on a port of their own.

Each API process counts its requests in files of `PROMETHEUS_MULTIPROC_DIR`. The parent process serves the sums, and
reads the rest from PostgreSQL at each scrape: a run counts wherever it was executed, and from the first.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, override

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Connection, case, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.database import autocommit_engine
from app.core.tasks import schedules
from app.core.tasks.history import UNFINISHED, State, runs
from app.core.tasks.relay import POSTPONED

logger = structlog.get_logger(__name__)

PORT = 9464  # without authentication; docker-compose.yml does not publish it
WINDOW = timedelta(minutes=10)  # in which ended runs are counted

# Names and labels: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
REQUESTS = Histogram(
    "http_server_request_duration_seconds",
    "Duration of requests, ?wait= included",
    ["http_request_method", "http_route", "http_response_status_code"],
)

COUNT_BY_TASK = select(runs.c.name, runs.c.state, func.count()).group_by(runs.c.name, runs.c.state)
DUE = case(
    (runs.c.attempts == 0, func.coalesce(runs.c.next_try_at, runs.c.accepted_at)),
    (runs.c.state == State.RETRY, runs.c.next_try_at),
    else_=runs.c.publish_at,
)
# A message that the broker refused is due after a pause; that of a first attempt or a retry counts as unsent meanwhile.
OLDEST_UNPUBLISHED = select(func.coalesce(func.extract("epoch", func.now() - func.min(DUE)), 0)).where(
    runs.c.outbox_action.is_not(None), runs.c.publish_at <= func.now() + POSTPONED, func.now() >= DUE
)
CONNECTIONS = text("SELECT sum(numbackends) FROM pg_stat_database")  # those of other roles as well
CONNECTIONS_LIMIT = text(
    "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings"
    " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
)
SIZE = text("SELECT pg_database_size(current_database())")

type Values = Mapping[tuple[str, ...], Any]
"""Values of a metric by the values of its labels."""


class CountRequests:
    """ASGI middleware that measures each request by method, path template and status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; one that no route matches has an empty path template."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # of an exception that nothing has handled

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "")
            REQUESTS.labels(scope["method"], route, status).observe(time.perf_counter() - started)


class FromDatabase(Collector):
    """Metrics read from PostgreSQL at each scrape."""

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; without PostgreSQL only `app_database_up`, which is 0 then."""
        try:
            with autocommit_engine().connect() as connection:
                metrics = list(_metrics(connection))
        except SQLAlchemyError as error:
            logger.warning("metrics without PostgreSQL", error=str(error))
            metrics = []
        yield _gauge("app_database_up", "1 if PostgreSQL responds, otherwise 0", {(): bool(metrics)})
        yield from metrics


def _metrics(connection: Connection) -> Iterator[Metric]:
    for name, description, condition in (
        ("app_runs_unfinished", "Runs that have not ended", runs.c.state.in_(UNFINISHED)),
        ("app_runs_ended_10m", "Runs that ended in the last 10 minutes", runs.c.ended_at > func.now() - WINDOW),
    ):
        rows = connection.execute(COUNT_BY_TASK.where(condition))
        yield _gauge(name, description, {(task, state): number for task, state, number in rows}, ("task", "state"))
    lateness: Values = {(row.name,): row.late.total_seconds() for row in connection.execute(schedules.lateness())}
    yield _gauge("app_schedule_late_seconds", "Time since the next tick was due; 0 before", lateness, ("schedule",))
    for name, description, statement in (
        ("app_outbox_oldest_seconds", "Age of the oldest message that is due; 0 if none is", OLDEST_UNPUBLISHED),
        ("app_database_connections", "Connections to PostgreSQL", CONNECTIONS),
        ("app_database_connections_limit", "Connections that PostgreSQL accepts", CONNECTIONS_LIMIT),
        ("app_database_size_bytes", "Size of the database", SIZE),
    ):
        yield _gauge(name, description, {(): connection.execute(statement).scalar_one()})


def _gauge(name: str, description: str, values: Values, labels: Sequence[str] = ()) -> Metric:
    gauge = GaugeMetricFamily(name, description, labels=labels)
    for of_labels, value in values.items():
        gauge.add_metric(of_labels, float(value))
    return gauge


def serve() -> None:
    """Serve `/metrics` on `PORT` from a thread of this process, the parent of the API processes."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    registry = REGISTRY
    if folder:
        shutil.rmtree(folder, ignore_errors=True)  # of processes before a restart
        Path(folder).mkdir(parents=True)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # it has no types
    registry.register(FromDatabase())
    start_http_server(PORT, registry=registry)
