"""Commands and examples of a project's documents that depend on its variant."""

import re

from tests.project import code_blocks
from tests.stack.conftest import Stack

PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def test_results_are_read_as_the_readme_shows(stack: Stack) -> None:
    (code,) = [code for code in PYTHON.findall(stack.project.files["README.md"]) if "send_task" in code]
    assert stack.compose("exec", "-T", "backend", "python", "-c", code).splitlines()[0] == "5.0"


def test_commands_of_the_guide_to_flower_work(stack: Stack) -> None:
    commands = "\n".join(code_blocks(stack.project.files["FLOWER.md"], "bash"))
    assert commands
    stack.project.run("bash", "-ex", "-c", commands)
