"""Production: HTTPS by Caddy, API keys, deploys without failed requests, and certificates from an authority."""

import contextlib
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect

from tests.project import code_blocks
from tests.stack import browser
from tests.stack.conftest import Stack, wait_until
from tests.variants import EVERYTHING

VARIANTS = [EVERYTHING]
KEY = "0123456789abcdef"
PUBLIC_DOMAIN = "svc.test"
REQUESTS_DURING_DEPLOY = 100


@pytest.fixture(scope="module")
def production(deployed: Stack) -> Iterator[Stack]:
    """Restart the services as the README says, with a domain, a key and the production file in .env."""
    section = deploy_section(deployed)
    (lines,) = code_blocks(section, "text")
    file = deployed.project.path / ".env"
    before = file.read_text(encoding="utf-8")
    env = before.replace("\nAPI_KEYS=\n", f"\nAPI_KEYS=web:{KEY}\n")
    assert env != before
    file.write_text(env + lines, encoding="utf-8")
    assert "`docker compose up --build --wait`" in section
    deployed.up("--build")
    yield deployed
    deployed.down()
    file.write_text(before, encoding="utf-8")


@pytest.fixture
def api(production: Stack, tmp_path: Path) -> Iterator[httpx2.Client]:
    """Return a client of the public address, which trusts the proxy's authority as the README says."""
    with client(production, tmp_path, headers={"Authorization": f"Bearer {KEY}"}) as opened:
        yield opened


def deploy_section(stack: Stack) -> str:
    """Return the section of the README about deploys, without that about managed servers."""
    (section,) = re.findall(r"^## Deploy\n.*?(?=^### Managed)", stack.project.files["README.md"], re.M | re.S)
    return str(section)


def client(stack: Stack, folder: Path, **options: Any) -> httpx2.Client:
    """Return an HTTP client that trusts the authority of the proxy."""
    root = folder / "root.crt"
    stack.compose("cp", "proxy:/data/caddy/pki/authorities/local/root.crt", str(root))
    return httpx2.Client(
        base_url="https://localhost", verify=ssl.create_default_context(cafile=root), timeout=90, **options
    )


def test_commands_of_the_readme_reach_the_api(production: Stack) -> None:
    (commands,) = code_blocks(deploy_section(production), "shell")
    assert json.loads(production.project.run("bash", "-ec", commands).stdout)["status"] == "ok"


def test_proxy_is_all_that_is_published(production: Stack) -> None:
    listed = [json.loads(line) for line in production.compose("ps", "--format", "json").splitlines()]
    published = {
        (container["Service"], port["PublishedPort"])
        for container in listed
        for port in container["Publishers"]
        if port["PublishedPort"]
    }
    assert published == {("proxy", 80), ("proxy", 443)}


def test_proxy_runs_with_least_privilege(production: Stack) -> None:
    container = production.compose("ps", "--quiet", "proxy").strip()
    inspected = json.loads(production.project.run("docker", "inspect", container).stdout)[0]["HostConfig"]
    assert inspected["ReadonlyRootfs"]
    assert inspected["CapDrop"] == ["ALL"]
    assert inspected["CapAdd"] == ["CAP_NET_BIND_SERVICE"]


def test_start_is_refused_without_keys(production: Stack) -> None:
    done = subprocess.run(
        ["docker", "compose", "config", "--quiet"],
        cwd=production.project.path,
        env={**os.environ, "API_KEYS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Set it in .env to a key for each client, such as web:KEY" in done.stderr


def test_requests_need_a_key(api: httpx2.Client) -> None:
    rejected = api.get("/tasks/", headers={"Authorization": ""})
    assert rejected.status_code == 401
    assert rejected.headers["Content-Type"] == "application/problem+json"
    assert api.get("/tasks/").status_code == 200


@pytest.mark.usefixtures("production")
def test_http_is_redirected_to_https() -> None:
    response = httpx2.get("http://localhost/tasks/?limit=1")
    assert response.status_code == 308
    assert response.headers["Location"] == "https://localhost/tasks/?limit=1"


def test_task_is_executed_over_https(api: httpx2.Client) -> None:
    response = api.post("/tasks/slow", params={"duration": 12, "wait": 30})
    assert response.status_code == 200, response.text
    assert response.json()["state"] == "SUCCESS"


def test_grafana_is_served_below_its_path(api: httpx2.Client) -> None:
    assert api.get("/grafana/").text.strip() == "stand-in for Grafana"


def test_responses_have_security_headers(api: httpx2.Client) -> None:
    for path in ("/health/live", "/tasks/unknown", "/flower/healthcheck", "/docs"):
        headers = api.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers
        assert "Strict-Transport-Security" not in headers, "it would hold for every port of localhost"


def test_large_body_is_rejected_with_a_problem_document(api: httpx2.Client) -> None:
    response = api.post("/tasks/x/retry", content=b"x" * 1_500_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 413
    assert response.headers["X-Frame-Options"] == "DENY"


def test_forwarded_headers_are_believed_from_the_proxy_alone(production: Stack, api: httpx2.Client) -> None:
    """The redirect of a path without its slash has the scheme that the API believes."""
    through_proxy = api.get("/tasks", headers={"X-Forwarded-Proto": "http"})
    assert through_proxy.headers["Location"].startswith("https://localhost/")
    script = (
        "import http.client as h; c = h.HTTPConnection('backend', 8060);"
        f"c.request('GET', '/tasks', headers={{'X-Forwarded-Proto': 'https', 'Authorization': 'Bearer {KEY}'}});"
        "print(c.getresponse().headers['Location'])"
    )
    past_proxy = production.compose("exec", "-T", "worker", "python", "-c", script)
    assert past_proxy.startswith("http://backend:8060/")


@pytest.mark.usefixtures("installed_browser")
def test_flower_is_used_in_a_browser(production: Stack, api: httpx2.Client) -> None:
    run = api.post("/tasks/fail", params={"reason": "over https", "wait": 10}).json()
    rejected = api.get("/flower/runs", headers={"Authorization": ""})
    assert rejected.status_code == 401
    with browser.open_page(production, base_url="https://localhost", ignore_https_errors=True) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("/flower")
        page.wait_for_url("https://localhost/flower/")
        page.goto("/flower/dashboard")
        expect(page.get_by_role("link", name="Failure rate")).to_be_visible()
        page.goto(f"/flower/runs/{run['task_id']}")
        page.get_by_role("button", name="Retry").click()
        wait_until(lambda: api.get(f"/tasks/{run['task_id']}").json()["attempts"] == 2, 20, "the second attempt")
        page.goto("/docs")
        expect(page.get_by_text("/tasks/add").first).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("event", ["restart", "deploy", "crash"])
def test_no_request_fails_when_the_api_is_replaced(production: Stack, event: str) -> None:
    stop = threading.Event()
    statuses: list[int | str] = []

    def send(path: str) -> None:
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(httpx2.Client(base_url="https://localhost", verify=False, timeout=90))
            own.headers["Authorization"] = f"Bearer {KEY}"
            while not stop.is_set():
                try:
                    statuses.append(own.post(path, params={"x": 1, "y": 1}).status_code)
                except httpx2.HTTPError as error:
                    statuses.append(repr(error))

    paths = ["/tasks/add"] * 3 + ["/tasks/add?wait=5"]
    threads = [threading.Thread(target=send, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(statuses) > REQUESTS_DURING_DEPLOY, 60, "requests before the deploy")
        if event == "restart":
            production.compose("restart", "backend")
        elif event == "deploy":
            production.up("--force-recreate", "--no-deps", "backend")
        else:
            production.compose("kill", "backend")
            production.up()
        after = len(statuses)
        wait_until(lambda: len(statuses) > after + REQUESTS_DURING_DEPLOY, 60, "requests after the deploy")
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=100)
    assert set(statuses) <= {200, 202}, [status for status in statuses if status not in {200, 202}]


def test_backup_under_load_restores_every_accepted_run(production: Stack, api: httpx2.Client) -> None:
    """Runs that are executing at the time of the backup start again after their time limit, so their rows are moved."""
    backup, restore = [block for block in code_blocks(deploy_section(production), "bash") if "backup.sql" in block]
    accepted = [api.post("/tasks/add", params={"x": number, "y": 1}).json()["task_id"] for number in range(100)]
    running = [api.post("/tasks/slow", params={"duration": 15}).json()["task_id"] for _ in range(2)]
    accepted += [api.post("/tasks/slow", params={"duration": 1}).json()["task_id"] for _ in range(20)]
    wait_until(lambda: api.get(f"/tasks/{running[0]}").json()["state"] == "STARTED", 30, "a run to execute")
    production.project.run("bash", "-ec", backup)
    production.down()
    production.up()
    with client(production, production.project.path.parent, headers=dict(api.headers)) as restored:
        assert restored.get(f"/tasks/{accepted[0]}").status_code == 404, "the volumes are new"
        production.project.run("bash", "-ec", restore)
        deadline = "deadline = now() - interval '31 seconds'"
        overdue = f"UPDATE task_runs SET {deadline} WHERE name = 'slow' AND state = 'STARTED'"
        production.compose("exec", "-T", "db", "psql", "--username=postgres", "--dbname=app", "-c", overdue)

        def unfinished() -> list[str]:
            return [run for run in [*accepted, *running] if restored.get(f"/tasks/{run}").json()["state"] != "SUCCESS"]

        wait_until(lambda: unfinished() == [], 240, "every accepted run to succeed")


AUTHORITY = """
services:
  authority:
    image: caddy:2
    command: ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]
    volumes: ["./authority.Caddyfile:/etc/caddy/Caddyfile:ro", "authority-data:/data"]
    networks: {proxy: {aliases: [authority.test]}}
  proxy:
    environment: {DOMAIN: svc.test}
    networks: {proxy: {aliases: [svc.test]}}
    volumes:
      - ./authority.root.crt:/etc/authority.crt:ro
volumes:
  authority-data:
"""

AUTHORITY_CADDYFILE = """
{
	admin off
	skip_install_trust
}
https://authority.test {
	tls internal
	acme_server
}
"""


def test_certificate_of_a_public_domain_comes_from_an_acme_authority(production: Stack, tmp_path: Path) -> None:
    """A second Caddy is the authority."""
    folder = production.project.path
    caddyfile = folder / "proxy" / "Caddyfile"
    before = caddyfile.read_text(encoding="utf-8")
    options = ("-f", "docker-compose.yml", "-f", "docker-compose.prod.yml", "-f", "authority.yml")
    (folder / "authority.yml").write_text(AUTHORITY, encoding="utf-8")
    (folder / "authority.Caddyfile").write_text(AUTHORITY_CADDYFILE, encoding="utf-8")
    (folder / "authority.root.crt").touch()
    try:
        production.compose(*options, "up", "--detach", "authority")
        source = "authority:/data/caddy/pki/authorities/local/root.crt"
        root = tmp_path / "root.crt"

        def copied() -> bool:
            with contextlib.suppress(AssertionError):
                production.compose(*options, "cp", source, str(root))
            return root.exists()

        wait_until(copied, 30, "the authority's certificate")
        (folder / "authority.root.crt").write_bytes(root.read_bytes())
        settings = "\tacme_ca https://authority.test/acme/local/directory\n\tacme_ca_root /etc/authority.crt\n"
        caddyfile.write_text(before.replace("\tadmin off\n", f"\tadmin off\n{settings}"), encoding="utf-8")
        production.compose(*options, "up", "--wait", "--force-recreate", "--no-deps", "proxy", DOMAIN=PUBLIC_DOMAIN)
        context = ssl.create_default_context(cafile=root)

        def answer() -> httpx2.Response | None:
            with contextlib.suppress(httpx2.TransportError):
                return http.get(
                    "https://127.0.0.1/health/live",
                    headers={"Host": PUBLIC_DOMAIN},
                    extensions={"sni_hostname": PUBLIC_DOMAIN},
                )
            return None

        with httpx2.Client(verify=context) as http:
            response: httpx2.Response = wait_until(answer, 60, "a certificate of the authority")
        assert response.status_code == 400, "the API was not started with this domain"
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    finally:
        caddyfile.write_text(before, encoding="utf-8")
        production.compose(*options, "rm", "--stop", "--force", "--volumes", "authority")
        for name in ("authority.yml", "authority.Caddyfile", "authority.root.crt"):
            (folder / name).unlink()
        production.up("--force-recreate", "--no-deps", "proxy")


def test_access_log_has_ids_and_no_arguments(production: Stack, api: httpx2.Client) -> None:
    response = api.post("/tasks/add", params={"x": 471147, "y": 1})
    request_id = response.headers["X-Request-ID"]
    lines = production.compose("logs", "--no-log-prefix", "proxy", "backend").splitlines()
    found = [json.loads(line) for line in lines if f'"request_id":"{request_id}"' in line.replace(": ", ":")]
    assert {line.get("msg") or line.get("event") for line in found} == {"handled request", "task enqueued"}
    assert "471147" not in "\n".join(lines)
    assert KEY not in "\n".join(lines)
