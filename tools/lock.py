"""Update the lock files of rendered projects: `uv run python -m tools.lock`, with `--upgrade` for newer versions.

Each distinct set of dependencies has a lock file in the template, with the condition in its name. A variant with the
set is rendered and locked by uv, and the lock file is copied back.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

from cookiecutter.main import cookiecutter

from tools.pieces import PROJECT, Answers, Template

SETTINGS = "backend/pyproject.toml"
LOCK = "backend/uv.lock"


def dependencies(settings: str) -> str:
    """Return everything in a pyproject.toml that the lock file depends on."""
    parsed = tomllib.loads(settings)
    project = parsed["project"]
    return repr((project["requires-python"], project["dependencies"], parsed["dependency-groups"]))


def lock_files(template: Template) -> dict[str, Answers]:
    """Return the lock files in the template, each with answers that select it.

    Raises:
        ValueError: if a set of dependencies has no lock file or several, or two sets share one.
    """
    sets = defaultdict(set)
    files = defaultdict(set)
    answers: dict[str, Answers] = {}
    conditional = [piece for piece in template.files if "uv.lock" in piece]
    reads = template.all_reads(SETTINGS, {}).union(*(template.reads[piece] for piece in conditional))
    for chosen in template.combinations(reads, {}):
        present = [piece for piece in conditional if template.form(piece, chosen).text is not None]
        if len(present) != 1:
            raise ValueError(f"{LOCK}: {len(present)} files with {chosen} (correct the conditions in their names)")
        needed = dependencies(template.expand(template.form(SETTINGS, chosen), chosen))
        sets[present[0]].add(needed)
        files[needed].add(present[0])
        answers.setdefault(present[0], {name: chosen[name] for name in template.choices if name in chosen})
    if any(len(needed) > 1 for needed in sets.values()) or any(len(found) > 1 for found in files.values()):
        raise ValueError(f"{LOCK}: {len(files)} sets of dependencies, {len(sets)} files (one set needs one file)")
    return answers


def main(*options: str) -> None:
    """Lock a variant for each set of dependencies, with options of `uv lock`."""
    template = Template()
    for file, answers in lock_files(template).items():
        with tempfile.TemporaryDirectory() as folder:
            project = Path(cookiecutter(str(template.root), no_input=True, output_dir=folder, extra_context=answers))
            subprocess.run(["uv", "lock", *options], cwd=project / "backend", check=True)
            shutil.copyfile(project / LOCK, template.root / PROJECT / file)


if __name__ == "__main__":
    main(*sys.argv[1:])
