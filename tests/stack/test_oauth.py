"""Flower, where people log in with an account elsewhere: a provider of our own stands for GitHub, GitLab and Okta."""

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

from tests.stack.conftest import SLUG, Stack
from tests.stack.test_project import SHELL
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
        },
    },
}


@pytest.fixture(scope="module")
def prepare(deployed: Stack) -> Iterator[trustme.CA]:
    """The variant with the provider beside its Flower, and an authority that vouches for the provider."""
    folder = deployed.project.path / "provider"
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "provider.pem")
    (folder / "provider.pem").chmod(0o644)  # another user reads it there
    shutil.copy(Path(__file__).parent / "provider.py", folder)
    override = deployed.project.path / "docker-compose.override.yml"
    override.write_text(yaml.safe_dump({"services": SERVICES}), encoding="utf-8")
    deployed.up()
    yield authority
    override.unlink()
    deployed.up("--remove-orphans")


@pytest.fixture
def person(prepare: trustme.CA) -> Iterator[httpx2.Client]:
    """A browser of somebody who is not logged in."""
    context = ssl.create_default_context()
    prepare.configure_trust(context)
    with httpx2.Client(base_url="http://localhost:5555", verify=context, timeout=20) as client:
        yield client


def log_in(person: httpx2.Client, login: str) -> Any:
    """Go where Flower sends a person to, as `login`, and come back; returns Flower's answer."""
    to_login = person.get("/tasks")
    assert (to_login.status_code, urlparse(to_login.headers["location"]).path) == (302, "/login")
    to_provider = person.get(to_login.headers["location"])
    assert to_provider.status_code == 302, to_provider.text
    to_flower = person.get(f"{to_provider.headers['location']}&login={login}")
    assert to_flower.status_code == 302, to_flower.text
    return person.get(to_flower.headers["location"])


def test_nobody_comes_in_without_an_account(person: httpx2.Client) -> None:
    for path in ("/", "/tasks", "/dashboard", "/api/tasks", "/api/dashboard", "/api/workers/stats"):
        answer = person.get(path)
        assert (answer.status_code, urlparse(answer.headers["location"]).path) == (302, "/login"), path
    assert person.post("/api/worker/shutdown/worker@nobody").status_code == 403
    assert person.get("/metrics").status_code == 404


def test_the_provider_is_asked_for_what_flower_needs(stack: Stack, person: httpx2.Client) -> None:
    redirect = urlparse(person.get("/login").headers["location"])
    asked = parse_qs(redirect.query)
    assert asked["client_id"] == ["the-key"]
    assert asked["redirect_uri"] == ["http://localhost:5555/login"]
    assert asked["response_type"] == ["code"]
    assert asked["state"][0]
    host = "accounts.google.com" if stack.variant["flower_auth"] == "google" else PROVIDER
    assert (redirect.scheme, redirect.netloc) == ("https", host)


def test_who_is_named_comes_in_and_stays_so(stack: Stack, person: httpx2.Client) -> None:
    """A login outlives a restart of Flower."""
    if stack.variant["flower_auth"] == "google":  # whose address cannot be another
        person.cookies.set("user", stack.flower_login["cookies"]["user"], domain="localhost.local")
    else:
        assert log_in(person, "ann@example.com").status_code == 302
    assert person.get("/dashboard").status_code == 200
    stack.compose("restart", "flower", "provider")
    stack.up()
    assert person.get("/dashboard").status_code == 200
    assert person.get("/logout").status_code == 200
    assert person.get("/dashboard").status_code == 302


def test_others_do_not(stack: Stack, person: httpx2.Client) -> None:
    if stack.variant["flower_auth"] == "google":
        person.cookies.set("user", "2|1:0|10:1700000000|4:user|4:eXlr|forged")
    else:
        assert log_in(person, "eve@example.com").status_code == 403
    assert person.get("/dashboard").status_code == 302
    assert "Traceback" not in stack.compose("logs", "--no-log-prefix", "flower")


def test_a_state_that_is_not_ours_is_refused(person: httpx2.Client) -> None:
    answer = person.get("/login", params={"code": "ann@example.com", "state": "forged"})
    assert answer.status_code == 403
    assert person.get("/dashboard").status_code == 302


def test_a_provider_without_a_key_stops_flower_with_a_line(stack: Stack) -> None:
    with pytest.raises(AssertionError, match=r'FLOWER_OAUTH2_KEY: "" is invalid \(use the client ID') as stopped:
        stack.compose("run", "--rm", "--no-deps", "-T", "--env", "FLOWER_OAUTH2_KEY=", "flower")
    assert "Traceback" not in str(stopped.value)


def test_every_command_of_the_guide_works(stack: Stack) -> None:
    blocks = SHELL.findall(stack.project.files["FLOWER.md"])
    assert re.search(r"FLOWER_SESSION=", blocks[0])
    stack.project.run("bash", "-ex", "-c", "\n".join(blocks))
