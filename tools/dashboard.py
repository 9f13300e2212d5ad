"""Write the Grafana dashboard of rendered projects: `uv run python -m tools.dashboard`."""

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from tools.pieces import ROOT

FILE = (
    ROOT
    / "{{cookiecutter.project_slug}}"
    / "monitoring"
    / "grafana"
    / "dashboards"
    / "{% if cookiecutter.monitoring == 'prometheus' %}service.json{% endif %}"
)
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
HEIGHT = 8
WIDTH = 24
TASK_QUEUES = 'queue!~"|dead-letters"'

REQUESTS = "http_server_request_duration_seconds"
STATUS = "http_response_status_code"
RUNTIME = "flower_task_runtime_seconds"

Query = tuple[str, str]  # PromQL, and the legend


def quantile(share: float, histogram: str, *labels: str) -> str:
    """Return the query of a quantile of the last 5 minutes, by labels."""
    by = ", ".join(["le", *labels])
    return f"histogram_quantile({share}, sum by ({by}) (rate({histogram}_bucket[5m])))"


STATS: list[tuple[str, str, str]] = [
    ("Targets down", "short", "count(up == 0) or vector(0)"),
    ("Unfinished", "short", "sum(app_runs_unfinished) or vector(0)"),
    ("Failed, 10 minutes", "short", 'sum(app_runs_ended_10m{state="FAILURE"}) or vector(0)'),
    ("Dead letters", "short", 'sum(rabbitmq_detailed_queue_messages{queue="dead-letters"})'),
    ("Oldest unsent", "s", "max(app_outbox_oldest_seconds)"),
    ("Disk space", "bytes", "min(rabbitmq_disk_space_available_bytes)"),
]
"""Title, unit and query of the numbers at the top."""

ROWS: dict[str, list[tuple[str, str, list[Query]]]] = {
    "Runs": [
        ("Runs that ended, per second", "ops", [("sum by (state) (app_runs_ended_10m) / 600", "{{state}}")]),
        ("Unfinished runs", "short", [("sum by (task, state) (app_runs_unfinished)", "{{task}} {{state}}")]),
        ("Failed runs, 10 minutes", "short", [('sum by (task) (app_runs_ended_10m{state="FAILURE"})', "{{task}}")]),
        ("Runtime of successful attempts, 95 %", "s", [(quantile(0.95, RUNTIME, "task"), "{{task}}")]),
    ],
    "API": [
        ("Requests per second", "reqps", [(f"sum by ({STATUS}) (rate({REQUESTS}_count[5m]))", f"{{{{{STATUS}}}}}")]),
        ("Duration of requests", "s", [(quantile(share, REQUESTS), f"{share:.0%}") for share in (0.5, 0.95, 0.99)]),
        ("Duration by path, 95 %", "s", [(quantile(0.95, REQUESTS, "http_route"), "{{http_route}}")]),
    ],
    "Broker": [
        ("Ready messages", "short", [("rabbitmq_detailed_queue_messages_ready", "{{queue}}")]),
        ("Consumers", "short", [(f"rabbitmq_detailed_queue_consumers{{{TASK_QUEUES}}}", "{{queue}}")]),
        (
            "Acknowledged messages per second",
            "ops",
            [(f"rate(rabbitmq_detailed_queue_messages_acked_total{{{TASK_QUEUES}}}[5m])", "{{queue}}")],
        ),
    ],
    "Relay, schedules and PostgreSQL": [
        ("Oldest unsent message", "s", [("app_outbox_oldest_seconds", "age")]),
        ("Lateness of schedules", "s", [("app_schedule_late_seconds", "{{schedule}}")]),
        ("Connections", "short", [("app_database_connections", "in use"), ("app_database_connections_limit", "limit")]),
        ("Size of the database", "bytes", [("app_database_size_bytes", "size")]),
    ],
}
"""Title, unit and queries of each chart, by row."""


def graph(title: str, unit: str, width: int, queries: Sequence[Query]) -> timeseries.Panel:
    """Return a chart over time."""
    panel = timeseries.Panel().title(title).datasource(SOURCE).unit(unit).min(0).height(HEIGHT).span(width)
    for expression, legend in queries:
        panel.with_target(prometheus.Dataquery().expr(expression).legend_format(legend))
    return panel


def build() -> str:
    """Return the dashboard as JSON."""
    made = dashboard.Dashboard("Service").uid("service").refresh("30s").time("now-3h", "now").timezone("browser")
    for title, unit, expression in STATS:
        panel = stat.Panel().title(title).datasource(SOURCE).unit(unit).height(HEIGHT // 2).span(WIDTH // len(STATS))
        made.with_panel(panel.with_target(prometheus.Dataquery().expr(expression)))
    for row, graphs in ROWS.items():
        made.with_row(dashboard.Row(row))
        for title, unit, queries in graphs:
            made.with_panel(graph(title, unit, WIDTH // len(graphs), queries))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2)


def main() -> None:
    """Write the dashboard; its legends look like Jinja."""
    FILE.write_text(f"{{% raw -%}}\n{build()}\n{{% endraw %}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
