"""Make the lock files of rendered projects anew: `uv run python -m tools.lock`, with `--upgrade` for newer versions.

Each set of dependencies has a lock file of its own in the template, with the condition in its name: a variant that has
it is rendered, locked by uv, and the file copied back.
"""

import copy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.environment import StrictEnvironment
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config

from tests.variants import ANSWERS, CHOICES, TEMPLATE

LOCKED = TEMPLATE / "{{cookiecutter.project_slug}}" / "backend"


def main(*options: str) -> None:
    """Lock one variant for each lock file; the options are those of `uv lock`."""
    files = sorted(LOCKED.glob("*uv.lock*"))
    for backend in CHOICES["result_backend"]:
        answers = prompt_for_config(
            {"cookiecutter": {**copy.deepcopy(ANSWERS), "result_backend": [backend]}}, no_input=True
        )
        env = StrictEnvironment(context={"cookiecutter": answers})
        (file,) = [each for each in files if env.from_string(each.name).render(cookiecutter=answers)]
        with tempfile.TemporaryDirectory() as folder:
            project = cookiecutter(
                str(TEMPLATE), no_input=True, output_dir=folder, extra_context={"result_backend": backend}
            )
            subprocess.run(["uv", "lock", *options], cwd=Path(project) / "backend", check=True)
            shutil.copyfile(Path(project) / "backend" / "uv.lock", file)


if __name__ == "__main__":
    main(*sys.argv[1:])
