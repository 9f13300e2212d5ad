"""Flower with a login provider. A provider of the tests replaces GitHub, GitLab and Okta."""

import re
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx2
import pytest
import trustme
import yaml

from tests.conftest import Render
from tests.project import code_blocks
from tests.stack.conftest import SLUG, Stack
from tests.variants import OAUTH, Variant

VARIANTS = [Variant.of(flower_auth=provider) for provider in OAUTH]
PROVIDER = "localhost:9443"
SERVICES = {
    "flower": {
        "ports": [f"127.0.0.1:{PROVIDER.split(':')[1]}:9443"],
        "volumes": ["./provider/ca.pem:/etc/ssl/provider.pem:ro"],
        "environment": {"SSL_CERT_FILE": "/etc/ssl/provider.pem"},
    },
    "provider": {
        "image": f"{SLUG}-backend",
        "command": ["python", "/provider/provider.py"],
        "network_mode": "service:flower",
        "volumes": ["./provider:/provider:ro"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9443))"],
            "interval": "1s",
            "start_period": "60s",
        },
    },
}


@pytest.fixture(scope="module")
def authority(deployed: Stack) -> Iterator[trustme.CA]:
    """Start the provider beside Flower; return the authority that signed its certificate."""
    folder = deployed.project.path / "provider"
    folder.mkdir(exist_ok=True)
    signer = trustme.CA()
    signer.cert_pem.write_to_path(folder / "ca.pem")
    signer.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "provider.pem")
    (folder / "provider.pem").chmod(0o644)  # read by the user of the container
    shutil.copy(Path(__file__).parent / "provider.py", folder)
    override = deployed.project.path / "docker-compose.override.yml"
    override.write_text(yaml.safe_dump({"services": SERVICES}), encoding="utf-8")
    deployed.up()
    yield signer
    override.unlink()
    deployed.up("--remove-orphans")


@pytest.fixture
def client(authority: trustme.CA) -> Iterator[httpx2.Client]:
    """Return a client of Flower without credentials, which trusts the provider."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with httpx2.Client(base_url="http://localhost:5555", verify=context, timeout=20) as opened:
        yield opened


def log_in(client: httpx2.Client, login: str) -> Any:
    """Follow the redirects to the provider and back as the user `login`; return Flower's response."""
    to_login = client.get("/tasks")
    assert (to_login.status_code, urlparse(to_login.headers["location"]).path) == (302, "/login")
    to_provider = client.get(to_login.headers["location"])
    assert to_provider.status_code == 302, to_provider.text
    to_flower = client.get(f"{to_provider.headers['location']}&login={login}")
    assert to_flower.status_code == 302, to_flower.text
    return client.get(to_flower.headers["location"])


def test_anonymous_user_must_log_in(client: httpx2.Client) -> None:
    for path in ("/", "/tasks", "/dashboard", "/runs", "/queues", "/api/tasks", "/api/dashboard", "/api/workers/stats"):
        response = client.get(path)
        assert (response.status_code, urlparse(response.headers["location"]).path) == (302, "/login"), path
    assert client.post("/api/worker/shutdown/worker@nobody").status_code == 403
    assert client.get("/metrics").status_code == 404


def test_login_redirects_to_the_provider(stack: Stack, client: httpx2.Client) -> None:
    redirect = urlparse(client.get("/login").headers["location"])
    query = parse_qs(redirect.query)
    assert query["client_id"] == ["the-key"]
    assert query["redirect_uri"] == ["http://localhost:5555/login"]
    assert query["response_type"] == ["code"]
    assert query["state"][0]
    host = "accounts.google.com" if stack.variant["flower_auth"] == "google" else PROVIDER
    assert (redirect.scheme, redirect.netloc) == ("https", host)


def test_allowed_user_stays_logged_in_across_a_restart(stack: Stack, client: httpx2.Client) -> None:
    """Log in, restart Flower, and log out."""
    if stack.variant["flower_auth"] == "google":  # its address cannot be changed
        client.cookies.set("user", stack.flower_login["cookies"]["user"], domain="localhost.local")
    else:
        assert log_in(client, "ann@example.com").status_code == 302
    assert client.get("/dashboard").status_code == 200
    assert client.post("/queues/celery/resume").status_code == 403  # without the token of a form
    (token,) = set(re.findall(r'name="_xsrf" value="([^"]+)"', client.get("/queues").text))
    response = client.post("/queues/celery/resume", data={"_xsrf": token})
    assert (response.status_code, response.headers["location"]) == (303, "/queues")
    stack.compose("restart", "flower", "provider")
    stack.up()
    assert client.get("/dashboard").status_code == 200
    assert client.get("/logout").status_code == 200
    assert client.get("/dashboard").status_code == 302


def test_other_user_is_rejected(stack: Stack, client: httpx2.Client) -> None:
    if stack.variant["flower_auth"] == "google":
        client.cookies.set("user", "2|1:0|10:1700000000|4:user|4:eXlr|forged")
    else:
        assert log_in(client, "eve@example.com").status_code == 403
    assert client.get("/dashboard").status_code == 302
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")


def test_forged_state_is_rejected(client: httpx2.Client) -> None:
    response = client.get("/login", params={"code": "ann@example.com", "state": "forged"})
    assert response.status_code == 403
    assert client.get("/dashboard").status_code == 302


def test_missing_client_id_stops_flower_with_an_error_line(stack: Stack) -> None:
    with pytest.raises(AssertionError, match=r'FLOWER_OAUTH2_KEY: "" is invalid \(use the client ID') as stopped:
        stack.compose("run", "--rm", "--no-deps", "-T", "--env", "FLOWER_OAUTH2_KEY=", "flower")
    assert "Traceback" not in str(stopped.value)


def test_commands_of_the_guide_work(stack: Stack, render: Render) -> None:
    """They are the same with each provider, and run with the first."""
    blocks = code_blocks(stack.project.files["FLOWER.md"], "bash")
    assert re.search(r"FLOWER_SESSION=", blocks[0])
    if stack.variant == VARIANTS[0]:
        stack.project.run("bash", "-ex", "-c", "\n".join(blocks))
    else:
        assert code_blocks(render(VARIANTS[0], project_slug=SLUG).files["FLOWER.md"], "bash") == blocks
