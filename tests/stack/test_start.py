"""What runs after `docker compose up --wait`, and as whom."""

import json

import pytest

from tests.stack.conftest import OURS, Stack


def test_every_service_is_healthy(stack: Stack) -> None:
    assert stack.is_healthy(), stack.health()


@pytest.mark.parametrize("service", OURS)
def test_our_own_services_run_without_rights_under_an_init(stack: Stack, service: str) -> None:
    assert stack.compose("exec", "-T", service, "id", "-u").strip() == "10001"
    assert "init" in stack.compose("exec", "-T", service, "cat", "/proc/1/comm")
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.compose("exec", "-T", service, "touch", "/srv/written")


def test_nothing_went_wrong_while_it_started(stack: Stack) -> None:
    said = [json.loads(line) for line in stack.said_at_start.splitlines() if line.startswith("{")]
    assert {"relay connected", "Application startup complete."} <= {line["event"] for line in said}
    assert [line for line in said if line["level"] in {"error", "critical"}] == []
    assert "Traceback" not in stack.said_at_start
