"""Flower with other settings in .env, and with a history after a crash or a corruption."""

import contextlib
from collections.abc import Iterator

import httpx2
import pytest
import yaml

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.variants import Variant

VARIANTS = [Variant.of()]


@contextlib.contextmanager
def flower_with(stack: Stack, **env: str) -> Iterator[None]:
    """Run Flower with these variables, and with the original ones afterwards."""
    stack.up("flower", **env)
    try:
        yield
    finally:
        stack.up("flower")


def startup_error(stack: Stack, **env: str) -> str:
    """Return the output of Flower, which exits at once with these variables."""
    variables = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
    with pytest.raises(AssertionError) as stopped:
        stack.compose("run", "--rm", "--no-deps", "-T", *variables, "flower")
    return str(stopped.value)


@pytest.mark.parametrize(
    ("variable", "value"), [("FLOWER_PASSWORD", ""), ("FLOWER_PASSWORD", "pa,ss"), ("FLOWER_PASSWORD", "pässword")]
)
def test_invalid_password_stops_flower_with_an_error_line(stack: Stack, variable: str, value: str) -> None:
    output = startup_error(stack, **{variable: value})
    assert f"{variable}: value is invalid (use one or more printable ASCII characters" in output
    assert "Traceback" not in output


def test_unwritable_folder_stops_flower_with_an_error_line(stack: Stack) -> None:
    output = startup_error(stack, FLOWER_DB="/srv/flower")
    assert 'FLOWER_DB: "/srv/flower" is invalid (use a file in a folder that user 10001 may write to)' in output
    assert "Traceback" not in output


def test_additional_users_can_log_in(stack: Stack) -> None:
    with flower_with(stack, FLOWER_MORE_USERS="ann:one,bob:two"):
        for user in (("ann", "one"), ("bob", "two"), stack.flower_login["auth"]):
            assert httpx2.get("http://localhost:5555/tasks", auth=user).status_code == 200, user
        assert httpx2.get("http://localhost:5555/tasks", auth=("ann", "two")).status_code == 401


def test_read_only_mode_rejects_controls(stack: Stack) -> None:
    with flower_with(stack, FLOWER_READ_ONLY="true"):
        name = stack.wait_for_worker()
        for path in (f"/api/worker/shutdown/{name}", f"/api/worker/pool/grow/{name}?n=1", "/api/task/async-apply/add"):
            assert stack.flower.post(path, json={}).status_code == 403, path
        assert "worker-shutdown" not in stack.flower.get(f"/worker/{name}").text
        for path in ("/queues/celery/pause", "/runs/retry?state=FAILURE", "/runs/unknown/revoke"):
            response = stack.flower.post(path)
            assert (response.status_code, "read-only mode" in response.text) == (403, True), path
        for path in ("/runs?state=FAILURE", "/queues", "/schedules"):
            response = stack.flower.get(path)
            assert (response.status_code, 'method="post"' in response.text) == (200, False), path
        assert stack.flower.get("/dashboard").status_code == 200


def test_worker_controls_all_work(stack: Stack) -> None:
    name = stack.wait_for_worker()
    commands: tuple[tuple[str, dict[str, str | int], str], ...] = (
        (f"/api/worker/pool/restart/{name}", {}, "Restarting"),
        ("/api/task/rate-limit/add", {"workername": name, "ratelimit": "50/s"}, "new rate limit set"),
        ("/api/task/timeout/add", {"workername": name, "soft": 60, "hard": 70}, "time limits set"),
        (f"/api/worker/queue/add-consumer/{name}", {"queue": "another"}, "another"),
        (f"/api/worker/queue/cancel-consumer/{name}", {"queue": "another"}, "another"),
    )
    for path, params, message in commands:
        response = stack.flower.post(path, params=params)
        assert (response.status_code, message in response.text) == (200, True), (
            f"{path}: {response.status_code} {response.text}"
        )
        assert stack.wait_for_end(stack.enqueue("add", x=1, y=1))["state"] == "SUCCESS", path
    before = faults.started_at("worker")
    assert stack.flower.post(f"/api/worker/shutdown/{name}").status_code == 200
    wait_until(lambda: faults.started_at("worker") != before, 60, "Docker to restart the worker")
    assert stack.wait_for_end(stack.enqueue("add", x=1, y=1), timeout=60)["state"] == "SUCCESS"


def test_url_prefix_applies_to_every_address(stack: Stack) -> None:
    with flower_with(stack, FLOWER_URL_PREFIX="flower"):
        page = stack.flower.get("/flower/dashboard")
        assert page.status_code == 200
        for address in ("/flower/dashboard/dashboard.js", "/flower/dashboard/dashboard.css", "/flower/api/dashboard"):
            assert address in page.text
            assert stack.flower.get(address).status_code == 200, address
        assert stack.flower.get("/flower/monitor").headers["location"] == "/flower/dashboard"
        assert stack.flower.get("/flower/api/workers/stats").status_code == 200
        assert httpx2.get("http://localhost:5555/flower/api/dashboard").status_code == 401
        assert stack.flower.get("/dashboard").status_code == 404
        response = stack.flower.post("/flower/queues/celery/resume")
        assert (response.status_code, response.headers["location"]) == (303, "/flower/queues")
        assert '"/flower/queues/celery/pause"' in stack.flower.get("/flower/queues").text


def test_host_is_accepted_when_it_is_in_allowed_hosts(stack: Stack) -> None:
    """Send the headers of a proxy that terminates TLS to Flower and to the API. Health checks keep using localhost."""
    headers = {"Host": "app.example.com", "Origin": "https://app.example.com", "Sec-Fetch-Site": "same-origin"}
    flower = (stack.flower, "/api/worker/shutdown/worker@nobody", 404)
    api = (stack.api, "/tasks/add?x=1&y=1", 202)
    for client, path, _ in (flower, api):
        assert client.post(path, headers=headers).status_code == 400
    stack.up(ALLOWED_HOSTS="app.example.com")
    try:
        for client, path, accepted in (flower, api):
            assert client.post(path, headers=headers).status_code == accepted
    finally:
        stack.up()


def test_saved_history_survives_a_crash(stack: Stack) -> None:
    override = stack.project.path / "docker-compose.override.yml"
    interval = {"FLOWER_STATE_SAVE_INTERVAL": "2000"}  # instead of a minute
    override.write_text(yaml.safe_dump({"services": {"flower": {"environment": interval}}}), encoding="utf-8")
    stack.up()
    task_id = stack.enqueue("add", x=2, y=3)
    stack.wait_for_flower(task_id, "SUCCESS")
    before = saved_at(stack)
    wait_until(lambda: saved_at(stack) > before, 30, "the next save")
    faults.crash("flower")
    assert stack.wait_for_flower(task_id, "SUCCESS")["result"] == "5.0"
    override.unlink()
    stack.up()


def saved_at(stack: Stack) -> float:
    """Return the time of Flower's last save, or 0."""
    code = "import pathlib; print(max([0, *(f.stat().st_mtime for f in pathlib.Path('/data').glob('flower*'))]))"
    return float(stack.compose("exec", "-T", "flower", "python", "-c", code))


def test_corrupt_history_is_logged_and_renamed(stack: Stack) -> None:
    write = "import pathlib; [f.write_bytes(b'?' * 4096) for f in pathlib.Path('/data').glob('flower*')]"
    files = "import pathlib; print([f.name for f in pathlib.Path('/data').glob('*.corrupt')])"
    stack.wait_for_flower(stack.enqueue("add", x=1, y=1), "SUCCESS")
    stack.compose("restart", "flower")
    stack.compose("kill", "flower")
    stack.compose("run", "--rm", "--no-deps", "-T", "flower", "python", "-c", write)
    stack.up()
    assert "Failed to load state from '/data/flower'" in stack.compose("logs", "--no-log-prefix", "flower")
    assert "flower" in stack.compose("exec", "-T", "flower", "python", "-c", files)
    stack.wait_for_flower(stack.enqueue("add", x=1, y=1), "SUCCESS")
