"""Alerts, the dashboard and the files that Grafana reads at its start."""

import json
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.project import Project
from tests.render.conftest import Texts
from tests.variants import PIECES
from tools import dashboard

DASHBOARD = "monitoring/grafana/dashboards/service.json"
PROVISIONING = "monitoring/grafana/provisioning"
KEYS = {
    f"{PROVISIONING}/datasources/prometheus.yml": (
        "datasources",
        {"name", "uid", "type", "access", "url", "isDefault"},
    ),
    f"{PROVISIONING}/dashboards/files.yml": ("providers", {"name", "type", "allowUiUpdates", "options"}),
}
"""Keys of Grafana's documentation, by file: https://grafana.com/docs/grafana/latest/administration/provisioning/."""


@pytest.fixture(scope="module")
def monitored(projects: list[Project]) -> Project:
    """Return a project with monitoring."""
    return next(project for project in projects if project.variant["monitoring"] == "prometheus")


def test_dashboard_is_up_to_date() -> None:
    """If this fails, run `python -m tools.dashboard`."""
    assert dashboard.FILE.read_text(encoding="utf-8") == f"{{% raw -%}}\n{dashboard.build()}\n{{% endraw %}}\n"


def test_dashboard_has_only_keys_of_the_schema(monitored: Project) -> None:
    parsed = json.loads(monitored.files[DASHBOARD])
    again = json.loads(json.dumps(Dashboard.from_json(parsed), cls=JSONEncoder))
    assert again == parsed


def test_panels_use_the_provisioned_data_source(monitored: Project) -> None:
    source = yaml.safe_load(monitored.files[f"{PROVISIONING}/datasources/prometheus.yml"])["datasources"][0]
    panels = [panel for panel in json.loads(monitored.files[DASHBOARD])["panels"] if panel["type"] != "row"]
    assert len(panels) > 10
    for panel in panels:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}, panel["title"]
        assert panel["targets"]
    assert len({panel["title"] for panel in panels}) == len(panels)


def test_panels_do_not_overlap(monitored: Project) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(monitored.files[DASHBOARD])["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= dashboard.WIDTH
        taken |= cells


def test_provisioning_has_only_known_keys(monitored: Project) -> None:
    for path, (kind, keys) in KEYS.items():
        parsed: dict[str, Any] = yaml.safe_load(monitored.files[path])
        assert set(parsed) == {"apiVersion", kind}
        assert all(set(each) <= keys for each in parsed[kind]), path


def test_alerts_have_a_severity_and_a_summary(monitored: Project) -> None:
    (group,) = yaml.safe_load(monitored.files["monitoring/alerts.yml"])["groups"]
    documented = monitored.files["README.md"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in documented


def test_metrics_of_the_readme_are_those_of_the_code(texts: Texts) -> None:
    code = (PIECES.root / "{{cookiecutter.project_slug}}/backend/app/metrics.py").read_text(encoding="utf-8")
    readmes = [text for path, text in texts if path == "README.md"]
    for text in readmes:
        rows = [line for line in text.splitlines() if line.startswith(("| `app_", "| `http_server"))]
        named = {name for row in rows for name in row.split("|")[1].replace("`", "").replace(",", " ").split()}
        assert named == {word for word in code.split('"') if word.startswith(("app_", "http_server"))}
