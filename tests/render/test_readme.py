"""The template's README: its commands work and its tables are complete."""

import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.project import copy_template
from tests.variants import ANSWERS, CHOICES, STRUCTURE, TEMPLATE, covering, product
from tools import terminal

README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def test_render_command_works_at_the_prompts(tmp_path: Path) -> None:
    """Run the command in a clone, and accept every default with the enter key."""
    assert "`uvx cookiecutter .`" in README
    clone = tmp_path / "flowerpot"
    copy_template(clone)
    enter = "\n" * len([name for name in ANSWERS if not name.startswith("_")])
    done = subprocess.run(
        ["uvx", "cookiecutter", "."], cwd=clone, input=enter, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (clone / "my-service" / "docker-compose.yml").exists()
    shown = " ".join(done.stdout.split())
    for name, prompt in ANSWERS["__prompts__"].items():
        for text in prompt.values() if isinstance(prompt, dict) else [prompt]:
            assert " ".join(text.split()) in shown, name


@pytest.mark.parametrize("theme", terminal.THEMES)
def test_recorded_session_is_up_to_date(tmp_path: Path, theme: str) -> None:
    """If this fails, run `python -m tools.terminal`."""
    root = ElementTree.parse(TEMPLATE / "docs" / f"terminal-{theme}.svg").getroot()
    shown = "".join(root.itertext()).replace("\xa0", " ")
    commands = [terminal.RENDER, terminal.START, terminal.TASK]
    assert [command for command in commands if command not in shown] == []
    assert [line for line in terminal.render(tmp_path).splitlines() if line not in shown] == []


def test_answers_all_have_a_prompt_and_a_row() -> None:
    questions = [name for name in ANSWERS if not name.startswith("_")]
    assert list(ANSWERS["__prompts__"]) == questions
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", README, re.M)
    assert [name for name, _ in rows if name in ANSWERS] == questions
    for name, values in rows:
        if name in CHOICES:
            listed = re.findall(r"`([^`]+)`", values)
            assert listed == [str(value).lower() if isinstance(value, bool) else value for value in CHOICES[name]]
            if isinstance(ANSWERS[name], list):
                assert set(ANSWERS["__prompts__"][name]) == {"__prompt__", *CHOICES[name]}


def test_prompts_fit_80_columns() -> None:
    """As cookiecutter prints them: a number, the text, and the default in parentheses."""
    prompts = ANSWERS["__prompts__"]
    for name, prompt in prompts.items():
        if isinstance(prompt, dict):
            lines = [f"  [10/13] {prompt['__prompt__']}", *(f"    {9} - {prompt[each]}" for each in CHOICES[name])]
        else:
            default = ANSWERS[name] if "{{" not in str(ANSWERS[name]) else "my-service"
            lines = [f"  [10/13] {prompt} ({'n' if isinstance(default, bool) else default}): "]
        assert [line for line in lines if len(line) > 80] == []


def test_numbers_of_rendered_projects_are_up_to_date() -> None:
    rendered, all_of_them = len(covering()), math.prod(len(values) for values in CHOICES.values())
    assert f"{rendered} of the {all_of_them:,} combinations" in README
    assert f"They render {rendered} projects" in (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_test_commands_are_valid() -> None:
    commands = re.findall(r"^uv run (pytest .*)$", README, re.M)
    assert len(commands) > 3

    def parse(command: str) -> subprocess.CompletedProcess[str]:
        options = [*command.split(), "--collect-only", "--ignore-glob=*test_*.py", "-q"]
        return subprocess.run([sys.executable, "-m", *options], cwd=TEMPLATE, capture_output=True, text=True)

    with ThreadPoolExecutor() as pool:
        for command, parsed in zip(commands, pool.map(parse, commands), strict=True):
            assert parsed.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, parsed.stdout + parsed.stderr
            for variant in re.findall(r"--only (\S+)", command):
                assert variant in {known.id for known in product(STRUCTURE)}
