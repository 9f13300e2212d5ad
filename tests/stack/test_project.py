"""The commands of a project's documents."""

import re

import pytest

from tests.project import code_blocks
from tests.stack.conftest import Stack
from tests.variants import CHOICES, COVERING

TEST = "docker compose run --rm --build test"
IDLE = "until curl -fsS http://localhost:8060/tasks/ | grep --quiet '\"tasks\":\\[\\]'; do sleep 0.5; done"
"""Takes the place of the tests elsewhere: a run that executes during the backup would wait for its deadline."""

TESTED = [next(each for each in COVERING if each["result_backend"] == backend) for backend in CHOICES["result_backend"]]
"""Variants in which the project's own tests run: one with each result backend, and with them every Python version."""

PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def test_project_is_tested_with_every_version_of_python() -> None:
    assert {each["python_version"] for each in TESTED} == set(CHOICES["python_version"])


def test_results_are_read_as_the_readme_shows(stack: Stack) -> None:
    (code,) = [code for code in PYTHON.findall(stack.project.files["README.md"]) if "send_task" in code]
    assert stack.compose("exec", "-T", "backend", "python", "-c", code).splitlines()[0] == "5.0"


@pytest.mark.parametrize("document", ["QUICK_ACCESS.md", "FLOWER.md", "README.md"])
def test_commands_of_documents_work(stack: Stack, document: str) -> None:
    commands = "\n".join(code_blocks(stack.project.files[document], "bash"))
    assert commands
    is_tested = TEST in commands and stack.project.variant in TESTED
    output = stack.project.run("bash", "-ex", "-c", commands if is_tested else commands.replace(TEST, IDLE)).stdout
    if is_tested:
        assert re.search(r"\d+ passed in", output), "the project's own tests"
        assert "skipped" not in output
