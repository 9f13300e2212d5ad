"""The project's own tests and checks, and the commands of its documents."""

import re

import pytest

from tests.project import code_blocks
from tests.stack.conftest import Stack

PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)

CHECKS = [
    "ruff check --no-cache",
    "ruff format --check --no-cache",
    "mypy --cache-dir /dev/null",
    "lint-imports --no-cache",
]


def test_unit_tests_pass_without_servers(stack: Stack) -> None:
    command = ["pytest", "-p", "no:cacheprovider"]
    output = stack.compose("run", "--rm", "--no-deps", "--env", "POSTGRES_HOST=nowhere", "test", *command)
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


@pytest.mark.parametrize("check", CHECKS)
def test_checks_pass(stack: Stack, check: str) -> None:
    stack.compose("run", "--rm", "--no-deps", "test", *check.split())


def test_results_are_read_as_the_readme_shows(stack: Stack) -> None:
    (code,) = [code for code in PYTHON.findall(stack.project.files["README.md"]) if "send_task" in code]
    assert stack.compose("exec", "-T", "backend", "python", "-c", code).splitlines()[0] == "5.0"


@pytest.mark.parametrize("document", ["QUICK_ACCESS.md", "FLOWER.md", "README.md"])
def test_commands_of_documents_work(stack: Stack, document: str) -> None:
    blocks = code_blocks(stack.project.files[document], "bash")
    assert blocks
    output = stack.project.run("bash", "-ex", "-c", "\n".join(blocks)).stdout
    if "run --rm --build test" in "".join(blocks):
        assert re.search(r"\d+ passed in", output), "the project's own tests"
        assert "skipped" not in output
