"""The development loop: reload of changed code, debuggers, the shell, and errors at start."""

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.project import Project
from tests.stack.conftest import Stack, wait_until
from tests.variants import Variant

VARIANTS = [Variant.of()]
TASKS = "backend/app/features/demo/tasks.py"


@pytest.fixture(scope="module")
def development(deployed: Stack) -> Iterator[Stack]:
    """Restart the services with the README's command, and normally after the tests."""
    (command,) = re.findall(r"^docker compose .* docker-compose\.dev\.yml up .*$", readme(deployed), re.M)
    deployed.project.run(*command.split())
    yield deployed
    deployed.up()


def readme(stack: Stack) -> str:
    """Return the README of the project."""
    return stack.project.files["README.md"]


def documented(stack: Stack, words: str) -> list[str]:
    """Return the command in the README's table whose description contains these words, without a terminal."""
    (command,) = re.findall(rf"^\| [^|]*{re.escape(words)}[^|]* \| `([^`]+)` \|$", readme(stack), re.M)
    return str(command).replace("exec", "exec -T").split()


@contextlib.contextmanager
def edited(stack: Stack, old: str, new: str) -> Iterator[None]:
    """Replace a text in the tasks of the demonstration, and restore it."""
    file = stack.project.path / TASKS
    before = file.read_text(encoding="utf-8")
    assert old in before
    file.write_text(before.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def during_restart(probe: Callable[[], Any]) -> Callable[[], Any]:
    """Return a probe that takes a refused or reset connection as false."""

    def tolerant() -> Any:
        with contextlib.suppress(httpx2.TransportError):
            return probe()
        return None

    return tolerant


def test_changed_line_is_live_in_api_and_worker(development: Stack) -> None:
    api = development.api

    def is_documented() -> bool:
        return "Add two numbers and 1000" in api.get("/openapi.json").text

    def is_executed() -> bool:
        run = api.post("/tasks/add", params={"x": 2, "y": 3, "wait": 1}).json()
        return bool(run.get("result") == 1005)

    with edited(development, 'numbers."""\n    return x + y', 'numbers and 1000."""\n    return x + y + 1000'):
        started = time.monotonic()
        wait_until(during_restart(is_documented), 60, "the API to have the changed line")
        print(f"API: {time.monotonic() - started:.1f} s")
        wait_until(during_restart(is_executed), 60, "the worker to execute the changed line")
        print(f"worker: {time.monotonic() - started:.1f} s")
    wait_until(during_restart(lambda: not is_documented() and not is_executed()), 60, "the restored line")


def test_logs_of_a_restart_are_readable_and_without_errors(development: Stack) -> None:
    log = development.compose("logs", "--no-log-prefix", "backend", "worker")
    assert log.count("relay connected") > 1, "the API has restarted in the previous test"
    assert "Traceback" not in log
    assert not [line for line in log.splitlines() if line.startswith("{")]


def test_services_recover_from_an_invalid_edit(development: Stack) -> None:
    with edited(development, "import time\n", "import time and space\n"):
        wait_until(lambda: "SyntaxError" in development.compose("logs", "--since", "60s", "worker"), 60, "an error")

    def is_executed() -> bool:
        run = development.api.post("/tasks/add", params={"x": 2, "y": 3, "wait": 5}).json()
        return bool(run.get("result") == 5)

    wait_until(during_restart(is_executed), 60, "API and worker")


class Debugger:
    """A client of the Debug Adapter Protocol."""

    def __init__(self, port: int) -> None:
        """Connect to an adapter."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.stream = self.socket.makefile("rb")
        self.sent = 0

    def send(self, command: str, **arguments: Any) -> None:
        """Send a request."""
        self.sent += 1
        body = json.dumps({"seq": self.sent, "type": "request", "command": command, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def wait_for(self, **fields: str) -> dict[str, Any]:
        """Return the next message with these fields."""
        while True:
            length = 0
            while header := self.stream.readline().strip():
                length = int(header.rpartition(b":")[2])
            message: dict[str, Any] = json.loads(self.stream.read(length))
            if fields.items() <= message.items():
                return message


@pytest.mark.usefixtures("development")
@pytest.mark.parametrize("port", [5678, 5679], ids=["api", "worker"])
def test_debugger_attaches_and_follows_the_processes(port: int) -> None:
    debugger = Debugger(port)
    with contextlib.closing(debugger.socket):
        debugger.send("initialize", adapterID="tests", clientID="tests")
        assert debugger.wait_for(command="initialize")["success"]
        debugger.send("attach", justMyCode=True, connect={"host": "127.0.0.1", "port": port})
        debugger.wait_for(event="initialized")
        debugger.send("configurationDone")
        assert debugger.wait_for(command="attach")["success"]
        followed = debugger.wait_for(event="debugpyAttach")["body"]
        assert followed["subProcessId"]
        assert followed["connect"]["port"] == port


def test_shell_has_the_application_loaded(development: Stack) -> None:
    command = documented(development, "Python shell")
    code = "from app.core.database import engine\nprint(add.name, engine().connect().closed)\n"
    assert "add False" in development.project.run(*command, input=code).stdout


def test_wrong_password_is_reported_with_the_fix(development: Stack) -> None:
    with pytest.raises(AssertionError, match=r"PostgreSQL: login rejected \(the volume db-data") as reported:
        development.compose("run", "--rm", "--no-deps", "--env", "POSTGRES_PASSWORD=other", "backend")
    assert "Traceback" not in str(reported.value)


def test_taken_port_is_reported_as_the_readme_shows(development: Stack) -> None:
    with pytest.raises(AssertionError) as reported:
        development.compose("run", "--rm", "--no-deps", "--service-ports", "backend")
    (symptoms,) = re.findall(r"^\| (.*) \| Another program uses the port", readme(development), re.M)
    assert any(symptom in str(reported.value) for symptom in re.findall(r"`([^`]+)`", symptoms)), reported.value


def test_commit_hooks_pass_in_a_new_project(development: Stack, tmp_path: Path) -> None:
    """mypy, the slowest check, runs in test_checks.py."""
    project = Project(tmp_path / "new", development.variant)
    shutil.copytree(development.project.path, project.path, ignore=shutil.ignore_patterns(".env", "__pycache__"))
    for command in (["git", "init", "-q"], ["git", "add", "--all"]):
        project.run(*command)
    shown = project.run(*documented(development, "run the checks now"), env={"SKIP": "mypy"}).stdout
    assert shown.count("Passed") == 3
