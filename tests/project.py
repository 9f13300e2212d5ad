"""A rendered project on disk."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

from tests.variants import TEMPLATE, Variant
from tools.pieces import Value


@dataclass(frozen=True)
class Project:
    """A rendered project on disk. Those of `tests/render` are shared and read-only."""

    path: Path
    variant: Variant

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of every file by its path in the project, except .env."""
        paths = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        texts = {path.relative_to(self.path).as_posix(): path.read_text(encoding="utf-8") for path in paths}
        texts.pop(".env", None)
        return texts

    @property
    def env(self) -> dict[str, str]:
        """The variables of .env."""
        lines = (self.path / ".env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    @cached_property
    def compose(self) -> dict[str, Any]:
        """docker-compose.yml as parsed by compose, with all profiles."""
        command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
        parsed: dict[str, Any] = json.loads(self.run(*command).stdout)
        return parsed

    def run(self, *command: str, folder: str = ".", **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder of the project. If it fails, raise its output."""
        given = {"capture_output": True, "text": True, "timeout": 600, "env": {**os.environ, **options.pop("env", {})}}
        done = subprocess.run(command, cwd=self.path / folder, check=False, **{**given, **options})
        if done.returncode:
            raise AssertionError(f"{self.variant.id}: {' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done


def code_blocks(markdown: str, language: str) -> list[str]:
    """Return the code blocks of a language, those of list items included, without their indentation."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", markdown, re.M | re.S)
    return [textwrap.dedent(text) for _, text in blocks]


def copy_template(folder: Path) -> None:
    """Copy the template to a folder without its repository, environment and caches."""
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(TEMPLATE, folder, ignore=ignored)


def render_project(variant: Variant, folder: Path, config: Path, **answers: Value) -> Project:
    """Render a variant into a folder, with other answers if given; `config` is cookiecutter's configuration file."""
    options = {"no_input": True, "config_file": config, "extra_context": {**dict(variant.answers), **answers}}
    return Project(Path(cookiecutter(str(TEMPLATE), output_dir=folder, **options)), variant)
