"""Features: built as the README shows, invalid, and removed; a queue with a dedicated worker."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.project import code_blocks
from tests.stack.conftest import Stack, wait_until
from tests.stack.test_checks import CHECKS
from tests.variants import COVERING

VARIANTS = COVERING[:1]

TEST = "docker compose run --rm --build test"
OWN_TEST = "tests/core/services/test_transaction.py"
DEMO = ("add", "fail", "flaky", "slow")

STEP = re.compile(
    r"^(?:`(?P<file>backend/\S+\.py)`|Add .* `(?P<changed>backend/\S+\.py)`):\n\n```python\n(?P<code>.*?)^```"
    r"|^```shell\n(?P<commands>.*?)^```",
    re.M | re.S,
)


def section(stack: Stack, title: str) -> str:
    """Return a section of the rendered README."""
    text = stack.project.files["README.md"]
    (found,) = re.findall(rf"^## {title}\n.*?(?=^## |\Z)", text, re.M | re.S)
    return str(found)


@pytest.fixture
def editable(stack: Stack) -> Iterator[Stack]:
    """Return a stack with source files that a test may edit. They are restored and rebuilt afterwards."""
    before = snapshot(stack.project.path)
    yield stack
    for path in set(snapshot(stack.project.path)) - set(before):
        path.unlink()
    for path, content in before.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    stack.compose("exec", "-T", "db", "sh", "-c", FORGET_FEATURES)
    stack.up("--build", "--remove-orphans")


FORGET_FEATURES = """psql --quiet --username "$POSTGRES_USER" "$POSTGRES_DB" \
    --command "DROP TABLE IF EXISTS orders" --command "DELETE FROM alembic_version WHERE version_num !~ '^[0-9]{4}$'"
"""


def snapshot(project: Path) -> dict[Path, bytes]:
    """Return the content of every source file of a project."""
    paths = (path for path in project.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths if not {".venv", "__pycache__"} & set(path.parts)}


def test_feature_is_built_as_the_readme_shows(editable: Stack) -> None:
    """The tests of the feature place an order, roll one back, and retry a receipt that fails."""
    steps = STEP.findall(section(editable, "Add a feature"))
    assert len(steps) >= 9
    output = ""
    for path, listed, code, commands in steps:
        if commands:
            output = editable.project.run("bash", "-ec", commands).stdout
        else:
            (editable.project.path / (path or listed)).write_text(code, encoding="utf-8")
    assert len(re.findall(r"\d+ passed", output)) == 2, "unit tests, and tests with the services"
    assert "skipped" not in output
    for check in CHECKS:
        editable.compose("run", "--rm", "--no-deps", "test", *check.split())
    receipts = editable.history(name="send_receipt")
    assert {(run["state"], run["attempts"], run["queue"]) for run in receipts} == {("SUCCESS", 2, "mail")}
    editable.wait_for_flower(receipts[0]["task_id"], "SUCCESS")
    for commands in code_blocks(section(editable, "Migrations"), "shell"):
        editable.project.run("bash", "-ec", commands)


@pytest.mark.parametrize(("document", "number"), [("README.md", 5), ("AGENTS.md", 9)])
def test_development_commands_of_documents_work(editable: Stack, document: str, number: int) -> None:
    """Run the block with the checks; the host needs uv and the project's Python. The tests were run before.

    Those of the README need no server, so they get none. Commands of AGENTS.md that the README has as well run once.
    """
    of_readme, commands = (
        block.splitlines()
        for name in ("README.md", document)
        for block in code_blocks(editable.project.files[name], "shell")
        if "lint-imports" in block
    )
    assert len(commands) == number
    repeated = {TEST, *(of_readme if document != "README.md" else ())}
    env = {"POSTGRES_HOST": "nowhere", "RABBITMQ_HOST": "nowhere"} if document == "README.md" else {}
    editable.project.run("bash", "-ec", "\n".join(line for line in commands if line not in repeated), env=env)


def test_empty_migration_is_an_error(editable: Stack) -> None:
    command = ["uv", "run", "--env-file", "../.env", "alembic", "revision", "--autogenerate", "-m", "Nothing"]
    with pytest.raises(AssertionError, match=r"no changes found \(define tables in app/features/<name>/tables\.py"):
        editable.project.run(*command, folder="backend")


def test_task_is_added_as_the_readme_shows(editable: Stack) -> None:
    (_, _, _, commands), (path, _, code, _) = STEP.findall(section(editable, "Add a task"))
    editable.project.run("bash", "-ec", commands)
    (editable.project.path / path).write_text(code, encoding="utf-8")
    editable.up("--build")
    response = editable.api.post("/tasks/shout", params={"text": "hello", "times": 2, "wait": 60})
    assert (response.status_code, response.json()["result"]) == (200, "HELLO HELLO")
    assert editable.api.post("/tasks/shout").status_code == 422
    assert "Repeat a text in capitals." in editable.api.get("/openapi.json").text


def test_project_starts_and_passes_its_tests_when_the_demo_is_deleted(editable: Stack) -> None:
    """Of the tests with services, few run: no test of the core calls a task of the demo."""
    text = "".join(
        path.read_text(encoding="utf-8") for path in editable.project.path.glob("backend/tests/core/**/*.py")
    )
    assert not re.search(rf"features\.demo|/tasks/({'|'.join(DEMO)})\b", text)
    backend = editable.project.path / "backend"
    for folder in (backend / "app/features/demo", backend / "tests/features/demo"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    editable.up("--build")
    output = editable.compose("run", "--rm", "--build", "test", "pytest", "-m", "", "tests/core/unit", OWN_TEST)
    assert re.search(r"\d+ passed in", output)
    assert "skipped" not in output
    for check in CHECKS:
        editable.compose("run", "--rm", "--no-deps", "test", *check.split())
    assert editable.api.post("/tasks/add", params={"x": 1, "y": 1}).status_code == 405


def test_second_worker_is_added_as_the_readme_shows(editable: Stack) -> None:
    """Until the worker runs, the readiness probe and the dashboard report the queue without a consumer."""
    (override,) = re.findall(r"^```yaml\n(.*?)^```", section(editable, "Queues"), re.M | re.S)
    queues = editable.project.path / "backend/app/features/queues.py"
    queues.write_text('"""Queues."""\n\nQUEUES = ["celery", "mail"]\n', encoding="utf-8")
    tasks = editable.project.path / "backend/app/features/demo/tasks.py"
    tasks.write_text(tasks.read_text().replace("@task()\ndef add", '@task(queue="mail")\ndef add'), encoding="utf-8")
    env = editable.project.path / ".env"
    env.write_text(re.sub("^WORKER_QUEUES=.*$", "WORKER_QUEUES=celery", env.read_text(), flags=re.M), encoding="utf-8")
    editable.up("--build")

    def ready() -> Any:
        return editable.api.get("/health/ready").json()

    wait_until(lambda: ready()["queues"] == {"celery": "ok", "mail": "no consumer"}, 20, "the queue to be reported")
    assert ready()["status"] == "degraded"

    def consumers() -> Any:
        return editable.flower.get("/api/dashboard").json()["consumers"]

    wait_until(
        lambda: consumers() == {"celery": 1, "mail": 0, "dead-letters": None}, 30, "the dashboard to list the queue"
    )
    waiting = editable.enqueue("add", x=1, y=1)
    (editable.project.path / "docker-compose.override.yml").write_text(override, encoding="utf-8")
    editable.up()
    run = editable.wait_for_end(waiting)
    assert (run["state"], run["queue"]) == ("SUCCESS", "mail")
    wait_until(lambda: ready()["status"] == "ok", 20, "every queue to be consumed")
    names = {queue["name"] for queue in editable.broker.get("/queues").json()}
    assert {"celery", "mail", "dead-letters"} <= names
    policies = {queue["name"]: queue.get("policy") for queue in editable.broker.get("/queues").json()}
    assert (policies["mail"], policies["dead-letters"]) == ("tasks", "dead-letters")


def test_generated_client_has_readable_names(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(stack.api.get("/openapi.json").text, encoding="utf-8")
    generator = Path(sys.executable).parent / "openapi-python-client"
    options = ["--path", str(document), "--output-path", str(tmp_path / "service_client"), "--meta", "none"]
    subprocess.run([generator, "generate", *options], check=True, capture_output=True, timeout=60)
    operations = {file.stem for file in (tmp_path / "service_client" / "api").glob("*/*.py")} - {"__init__"}
    tasks = {"list_active", "list_history", "get_task", "revoke_task", "retry_task", "retry_tasks", "revoke_tasks"}
    tasks |= {f"enqueue_{name}" for name in DEMO}
    others = {"list_schedules", "pause_schedule", "resume_schedule", "run_schedule"}
    others |= {"list_queues", "pause_queue", "resume_queue", "get_live", "get_ready"}
    assert operations == tasks | others
    models = {file.stem for file in (tmp_path / "service_client" / "models").glob("*.py")}
    assert {"accepted", "page", "problem", "progress", "task_run"} <= models
    assert not [name for name in models if name.endswith("_problem")]
    monkeypatch.syspath_prepend(tmp_path)
    with import_module("service_client").Client(base_url="http://localhost:8060") as client:
        run = import_module("service_client.api.tasks.enqueue_add").sync(client=client, x=2, y=3, wait=60)
    assert run.result == 5


@pytest.mark.parametrize(
    ("file", "code", "problem"),
    [
        (
            "broken/tasks.py",
            "@task()\ndef add(run: RunContext) -> None: ...\n",
            "app/features/demo/tasks.py: task add: the name is taken by app/features/broken/tasks.py"
            " (rename one of them)",
        ),
        (
            "broken/tasks.py",
            '@task(queue="mial")\ndef lost(run: RunContext) -> None: ...\n',
            'app/features/broken/tasks.py: task lost: unknown queue "mial"'
            " (add it to app/features/queues.py, or choose from celery)",
        ),
        (
            "broken/tasks.py",
            "@task()\ndef wrong(run: RunContext, wait: int) -> None: ...\n",
            "app/features/broken/tasks.py: task wrong: argument wait: the name is reserved (rename it)",
        ),
        (
            "my-feature/tasks.py",
            "",
            "app/features/my-feature: not a valid package name (use lowercase letters, digits and underscores)",
        ),
    ],
)
def test_invalid_feature_stops_every_service_with_one_line(
    stack: Stack, tmp_path: Path, file: str, code: str, problem: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    (path.parent / "__init__.py").touch()
    path.write_text(f"from app.core.tasks import RunContext, task\n\n\n{code}", encoding="utf-8")
    mount = f"{path.parent}:/srv/app/features/{path.parent.name}:ro"
    for command in ("python -m app.main", "celery --app=app.celery_app worker"):
        script = f"timeout 20 {command} 2>&1; echo $?"
        output = stack.compose("run", "--rm", "--no-deps", "--volume", mount, "backend", "sh", "-c", script)
        assert output.splitlines() == [problem, "1"]
