"""A variant in containers: started once for all of its tests, and removed with its data after them."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import MISSING, Render
from tests.project import Project
from tests.stack import browser
from tests.variants import COVERING, STRUCTURE, TEMPLATE, Variant, product

SLUG = "flowerpot-stack"
OWN_SERVICES = ("backend", "worker", "flower")
GRAFANA = re.compile(r"image: grafana/grafana:\S+")
STAND_IN = """image: caddy:2
    entrypoint: ["caddy", "respond", "--listen", ":3000", "stand-in for Grafana"]
    cap_add: [NET_BIND_SERVICE]"""
"""Responds on Grafana's port: Grafana's image, half a GB, is not needed to test the services around it."""

ENDED = {"SUCCESS", "FAILURE", "REVOKED"}


def wait_until(probe: Callable[[], Any], timeout: float, message: str) -> Any:
    """Return the first true value of `probe`. Tests wait for conditions here instead of sleeping."""
    deadline = time.monotonic() + timeout
    while not (seen := probe()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {message}, last seen: {seen!r}"
        time.sleep(0.2)
    return seen


class Stack:
    """The services of a variant, as seen by a client."""

    def __init__(self, project: Project, features: Path | None = None, services: Path | None = None) -> None:
        """Take a rendered project, and add features and services to it.

        `features` has a folder for each feature; `services` has a `docker-compose.override.yml` and its files.
        """
        if features:
            shutil.copytree(features, project.path / "backend" / "app" / "features", dirs_exist_ok=True)
        if services:
            shutil.copytree(services, project.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        if project.variant["monitoring"] == "prometheus":
            file = project.path / "docker-compose.yml"
            text, replaced = GRAFANA.subn(STAND_IN, file.read_text(encoding="utf-8"))
            assert replaced == 1
            file.write_text(text, encoding="utf-8")
        self.project = project
        self.variant = project.variant
        self.startup_logs = ""

    def compose(self, *arguments: str, **env: str) -> str:
        """Run docker compose in the project; return its output."""
        return self.project.run("docker", "compose", *arguments, env=env).stdout

    def up(self, *options: str, **env: str) -> None:
        """Start the services that do not run, and wait until all are healthy."""
        self.compose("up", "--wait", "--wait-timeout", "120", *options, **env)

    def health(self) -> dict[str, str]:
        """Return the health of each running service. One unhealthy container makes its service unhealthy."""
        listed = [json.loads(line) for line in self.compose("ps", "--format", "json").splitlines()]
        listed.sort(key=lambda container: container["Health"] != "healthy")
        return {container["Service"]: container["Health"] for container in listed}

    @property
    def services(self) -> set[str]:
        """The services that `docker compose up` starts."""
        return set(self.compose("config", "--services").split())

    def is_healthy(self) -> bool:
        """Return whether every service that `docker compose up` starts is healthy."""
        return self.health() == dict.fromkeys(self.services, "healthy")

    def down(self) -> None:
        """Kill and remove all containers, and remove networks and volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "0")

    def close(self) -> None:
        """Close the HTTP clients."""
        for client in vars(self).values():
            if isinstance(client, httpx2.Client):
                client.close()

    @cached_property
    def api(self) -> httpx2.Client:
        """A client of the API."""
        return httpx2.Client(base_url="http://localhost:8060", timeout=70)

    @cached_property
    def flower(self) -> httpx2.Client:
        """A client of Flower, with credentials."""
        return httpx2.Client(base_url="http://localhost:5555", timeout=20, **self.flower_login)

    @cached_property
    def flower_login(self) -> dict[str, Any]:
        """The options of a client that log it in to Flower."""
        env = self.project.env
        if self.variant["flower_auth"] == "basic":
            return {"auth": (env["FLOWER_USER"], env["FLOWER_PASSWORD"])}
        if self.variant["flower_auth"] == "none":
            return {}
        session = self.compose("exec", "-T", "flower", "python", "-m", "app.core.monitor.script_session")
        return {"cookies": {"user": session}, "headers": {"Authorization": "Session"}}

    @cached_property
    def broker(self) -> httpx2.Client:
        """A client of RabbitMQ's management API."""
        env = self.project.env
        auth = (env["RABBITMQ_DEFAULT_USER"], env["RABBITMQ_DEFAULT_PASS"])
        return httpx2.Client(base_url="http://localhost:15672/api", timeout=20, auth=auth)

    def fill_in_env(self) -> None:
        """Set the values in .env that the user has to enter for a login provider."""
        values = {
            "FLOWER_AUTH": "'ann@example.com|bob@example.com'",
            "FLOWER_OAUTH2_KEY": "the-key",
            "FLOWER_OAUTH2_SECRET": "the-secret",
            "FLOWER_OAUTH2_OKTA_BASE_URL": "https://localhost:9443/oauth2",
            "FLOWER_GITHUB_OAUTH_DOMAIN": "localhost:9443",
            "FLOWER_GITLAB_OAUTH_DOMAIN": "localhost:9443",
        }
        file = self.project.path / ".env"
        lines = (line.partition("=") for line in file.read_text(encoding="utf-8").splitlines())
        text = "\n".join(f"{name}{equals}{values.get(name, value)}" for name, equals, value in lines)
        file.write_text(f"{text}\n", encoding="utf-8")

    def enqueue(self, task: str, **arguments: Any) -> str:
        """Submit a task to the API; return the id of its run."""
        response = self.api.post(f"/tasks/{task}", params=arguments)
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    def wait_for_end(self, task_id: str, timeout: float = 30) -> dict[str, Any]:
        """Return a run once it has ended."""

        def ended() -> dict[str, Any] | None:
            response = self.api.get(f"/tasks/{task_id}")
            assert response.status_code == 200, response.text
            run: dict[str, Any] = response.json()
            return run if run["state"] in ENDED else None

        run: dict[str, Any] = wait_until(ended, timeout, f"{task_id} to end")
        return run

    def wait_for_start(self, *task_ids: str) -> None:
        """Wait until these runs are executing."""

        def are_started() -> bool:
            return all(self.api.get(f"/tasks/{task_id}").json()["state"] == "STARTED" for task_id in task_ids)

        wait_until(are_started, 30, f"{task_ids} to start")

    def wait_for_worker(self) -> str:
        """Return the name of the only worker once Flower lists it."""
        (name,) = wait_until(lambda: self.flower.get("/api/workers/stats").json(), 30, "Flower to list the worker")
        return str(name)

    def history(self, **filters: Any) -> list[dict[str, Any]]:
        """Return every run in the history that matches the filters."""
        runs: list[dict[str, Any]] = []
        while True:
            page = self.api.get("/tasks/history", params={"limit": 500, **filters}).json()
            runs += page["tasks"]
            if page["next_cursor"] is None:
                return runs
            filters["cursor"] = page["next_cursor"]

    def wait_for_flower(self, task_id: str, state: str, timeout: float = 20) -> dict[str, Any]:
        """Return a run as shown by Flower, once Flower has received this state."""

        def shown() -> dict[str, Any] | None:
            response = self.flower.get(f"/api/task/info/{task_id}")
            return response.json() if response.status_code == 200 and response.json()["state"] == state else None

        task: dict[str, Any] = wait_until(shown, timeout, f"Flower to show {task_id} as {state}")
        return task


def parametrize_variants(metafunc: pytest.Metafunc, variants: list[Variant], *extras: Path) -> None:
    """Start these variants, or those that the command line selects, with folders of extra features and services."""
    if "deployed" not in metafunc.fixturenames:
        return
    every = list(dict.fromkeys([*product(STRUCTURE), *variants]))
    chosen = every if metafunc.config.getoption("all_stacks") else variants
    if only := metafunc.config.getoption("only"):
        chosen = [variant for variant in every if variant.id == only]
        if not chosen:
            ids = ", ".join(variant.id for variant in every)
            raise pytest.UsageError(f"--only {only}: variant not found (use one of {ids})")
    params = [pytest.param((variant, extras), id=variant.id) for variant in chosen]
    metafunc.parametrize("deployed", params, indirect=True, scope="session")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Start the variants of a test module, by default a covering set. Subpackages start their own."""
    if metafunc.module.__name__.rpartition(".")[0] == "tests.stack":
        parametrize_variants(metafunc, getattr(metafunc.module, "VARIANTS", COVERING))


@pytest.fixture(scope="session")
def no_leftovers(request: pytest.FixtureRequest) -> None:
    """Remove the containers, networks and volumes that an interrupted run of these tests has left."""
    if request.config.stash[MISSING]:
        return
    kinds = {
        "container": (("ls", "--all", "--quiet", "--filter", f"name=^{SLUG}-"), ("rm", "--force", "--volumes")),
        "network": (("ls", "--quiet", "--filter", f"name=^{SLUG}_"), ("rm",)),
        "volume": (("ls", "--quiet", "--filter", f"name=^{SLUG}_"), ("rm",)),
    }
    for kind, (listing, removal) in kinds.items():
        found = subprocess.run(["docker", kind, *listing], check=True, capture_output=True, text=True).stdout.split()
        if found:
            subprocess.run(["docker", kind, *removal, *found], check=True, capture_output=True)


@pytest.fixture(scope="session")
def deployed(request: pytest.FixtureRequest, render: Render) -> Iterator[Stack]:
    """Build the images of a variant, except that of its tests, and start its services."""
    request.getfixturevalue("no_leftovers")
    variant, extras = request.param
    stack = Stack(render(variant, project_slug=SLUG), *extras)
    stack.fill_in_env()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(stack.down)
        cleanup.callback(stack.close)
        every = stack.compose("--profile", "*", "config", "--services").split()
        stack.compose("build", *(service for service in every if service != "test"))
        stack.up()
        stack.startup_logs = stack.compose("logs", "--no-log-prefix", *OWN_SERVICES)
        yield stack


@pytest.fixture(scope="module")
def image_of_tests(deployed: Stack) -> None:
    """Build the image of the project's own tests and checks."""
    deployed.compose("build", "test")


@pytest.fixture
def stack(deployed: Stack) -> Stack:
    """Return the variant once it is healthy again after the previous test."""
    if not deployed.is_healthy():
        if set(deployed.health()) != deployed.services:
            deployed.up()
        wait_until(deployed.is_healthy, 90, "every service to be healthy again")
    return deployed


@pytest.fixture
def installed_browser() -> None:
    """Skip the test without a browser, or fail it in a pipeline."""
    missing = "browser not found (install Chromium, or run `uv run playwright install chromium`)"
    if not browser.find_executable():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Any:
    """Return the folder of the documents' screenshots with --write-screenshots, else none."""
    folder = TEMPLATE / "docs" / "flower"
    if not request.config.getoption("write_screenshots"):
        return None
    folder.mkdir(exist_ok=True)
    return folder
