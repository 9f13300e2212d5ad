"""Services after `docker compose up --wait`: health, users and logs."""

import json

import pytest

from tests.stack.conftest import OWN_SERVICES, Stack


def test_services_are_all_healthy(stack: Stack) -> None:
    assert stack.is_healthy(), stack.health()


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_own_services_run_unprivileged_under_an_init(stack: Stack, service: str) -> None:
    assert stack.compose("exec", "-T", service, "id", "-u").strip() == "10001"
    assert "init" in stack.compose("exec", "-T", service, "cat", "/proc/1/comm")
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.compose("exec", "-T", service, "touch", "/srv/written")


def test_startup_logs_contain_no_errors(stack: Stack) -> None:
    lines = [json.loads(line) for line in stack.startup_logs.splitlines() if line.startswith("{")]
    assert {"relay connected", "Application startup complete."} <= {line["event"] for line in lines}
    assert [line for line in lines if line["level"] in {"error", "critical"}] == []
    assert "Traceback" not in stack.startup_logs
