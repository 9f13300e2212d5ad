"""The template's own README: its commands run, its tables are complete."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from tests.variants import ANSWERS, CHOICES, TEMPLATE

README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def test_the_command_that_renders_works_for_a_person(tmp_path):
    """Word for word, from a clone, with every prompt answered by a press of the enter key."""
    assert "`uvx cookiecutter .`" in README
    clone = tmp_path / "flowerpot"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
    shutil.copytree(TEMPLATE, clone, ignore=ignored)
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


def test_every_answer_has_a_prompt_and_a_row():
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


def test_the_options_of_the_tests_exist():
    commands = re.findall(r"^uv run (pytest .*)$", README, re.M)
    assert len(commands) > 3

    def collect(command):
        options = [*command.split(), "--collect-only", "-q"]
        return subprocess.run(["uv", "run", *options], cwd=TEMPLATE, capture_output=True, text=True)

    with ThreadPoolExecutor() as pool:
        for collected in pool.map(collect, commands):
            assert collected.returncode == 0, collected.stdout
