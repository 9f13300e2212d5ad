"""Every way by which people render: typed at prompts, from files, archives and repositories, into odd places."""

import contextlib
import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.variants import ANSWERS, TEMPLATE

BIN = Path(sys.executable).parent
COOKIECUTTER = str(BIN / "cookiecutter")
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")


def cookiecutter(*arguments, folder, **env):
    """Run cookiecutter in a folder, which is also its home; returns the process."""
    given = {**os.environ, "HOME": str(folder), **env}
    command = [COOKIECUTTER, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=given)


def rendered(done, project):
    """The text of every file of a project but .env."""
    assert done.returncode == 0, done.stderr
    paths = sorted(path for path in project.rglob("*") if path.is_file() and path.name != ".env")
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the defaults give."""
    folder = tmp_path_factory.mktemp("plain")
    return rendered(cookiecutter(TEMPLATE, "--no-input", folder=folder), folder / "my-service")


def test_two_renders_differ_in_their_secrets_only(plain, tmp_path):
    assert rendered(cookiecutter(TEMPLATE, "--no-input", folder=tmp_path), tmp_path / "my-service") == plain
    assert (tmp_path / "my-service" / ".env").exists()


def test_answers_from_a_configuration(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("default_context: {project_name: Ours, result_backend: redis}", encoding="utf-8")
    files = rendered(cookiecutter("--config-file", config, "--no-input", TEMPLATE, folder=tmp_path), tmp_path / "ours")
    assert b"redis:8" in files["docker-compose.yml"]


def test_answers_from_a_replay(plain, tmp_path):
    """Cookiecutter remembers the answers of its last run, under the name of the template's folder."""
    first = cookiecutter(TEMPLATE, "--no-input", "project_name=Again", "ci=none", folder=tmp_path)
    files = rendered(first, tmp_path / "again")
    (remembered,) = (tmp_path / ".cookiecutter_replay").glob("*.json")
    kept = tmp_path / "kept.json"
    kept.write_bytes(remembered.read_bytes())
    for number, replay in enumerate((["--replay"], ["--replay-file", kept])):
        done = cookiecutter(*replay, "--output-dir", str(number), TEMPLATE, folder=tmp_path)
        assert rendered(done, tmp_path / str(number) / "again") == files
    assert set(plain) - set(files) == {".github/workflows/ci.yml", ".github/workflows/update.yml"}


def test_from_an_archive(plain, tmp_path):
    shutil.copytree(TEMPLATE, tmp_path / "packed" / "flowerpot", ignore=LEFT_BEHIND)
    archive = shutil.make_archive(str(tmp_path / "flowerpot"), "zip", tmp_path / "packed", "flowerpot")
    assert zipfile.is_zipfile(archive)
    done = cookiecutter("--no-input", archive, folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_from_a_repository_at_a_version(plain, tmp_path):
    """As README.md has it, by its tag, while its main branch has moved on."""
    origin = tmp_path / "flowerpot.git"
    shutil.copytree(TEMPLATE, origin, ignore=LEFT_BEHIND)
    tag = f"v{ANSWERS['__version']}"
    assert f"`--checkout {tag}`" in (TEMPLATE / "README.md").read_text(encoding="utf-8")
    git = ["git", "-c", "user.name=flowerpot", "-c", "user.email=flowerpot@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "One"], ["tag", tag]):
        subprocess.run([*git, *command], cwd=origin, check=True, capture_output=True)
    (origin / "cookiecutter.json").write_text("no longer JSON", encoding="utf-8")
    subprocess.run([*git, "commit", "-qam", "Two"], cwd=origin, check=True, capture_output=True)
    done = cookiecutter("--no-input", f"file://{origin}", "--checkout", tag, folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_into_a_path_with_blanks_and_letters(plain, tmp_path):
    place = tmp_path / "Übung 1, 测试"
    done = cookiecutter(TEMPLATE, "--no-input", "--output-dir", place, folder=tmp_path)
    assert rendered(done, place / "my-service") == plain


def test_without_hooks(plain, tmp_path):
    done = cookiecutter(TEMPLATE, "--no-input", "--accept-hooks", "no", folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain
    assert not (tmp_path / "my-service" / ".env").exists()


def test_rendering_calls_no_program_and_no_network(plain, tmp_path):
    """A path without programs, and a Python that refuses every connection."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*_): raise OSError('a network was asked for')\nsocket.socket.connect = refuse\n",
        encoding="utf-8",
    )
    assert hasattr(socket.socket, "connect")
    done = cookiecutter(TEMPLATE, "--no-input", folder=tmp_path, PATH="/nowhere", PYTHONPATH=str(tmp_path))
    assert rendered(done, tmp_path / "my-service") == plain


def test_a_person_types_answers_at_the_prompts(tmp_path):
    """In a terminal; what is typed there is data, whatever it looks like."""
    typed = {"project_name": "Our {{ 7 * 7 }} $(id)", "project_slug": "ours", "result_backend": "2"}
    questions = [name for name in ANSWERS if not name.startswith("_")]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(COOKIECUTTER, [COOKIECUTTER, str(TEMPLATE)], {**os.environ, "HOME": str(tmp_path), "TERM": "dumb"})
    said, deadline = "", time.monotonic() + 60
    for number, name in enumerate(questions, 1):
        while f"[{number}/{len(questions)}]" not in said or not said.rstrip(" ").endswith(":"):
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 1)[0]:
                said += os.read(terminal, 65536).decode(errors="replace")
        said = ""
        os.write(terminal, f"{typed.get(name, '')}\n".encode())
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while time.monotonic() < deadline:
            said += os.read(terminal, 65536).decode(errors="replace")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    about = json.loads((tmp_path / "ours" / "backend" / "app" / "about.json").read_text(encoding="utf-8"))
    assert about["title"] == typed["project_name"]
    assert "redis:8" in (tmp_path / "ours" / "docker-compose.yml").read_text(encoding="utf-8")


def test_an_older_cookiecutter_is_told_so(tmp_path):
    (tmp_path / "cookiecutter-2.6.0.dist-info").mkdir()
    (tmp_path / "cookiecutter-2.6.0.dist-info" / "METADATA").write_text("Name: cookiecutter\nVersion: 2.6.0\n")
    done = cookiecutter(TEMPLATE, "--no-input", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "cookiecutter 2.6.0 is too old: 2.7 or newer is needed" in done.stdout
    assert not (tmp_path / "my-service").exists()


def test_an_unknown_answer_changes_nothing(plain, tmp_path):
    """Cookiecutter drops it before any hook runs, so that nothing of the template can refuse it."""
    done = cookiecutter(TEMPLATE, "--no-input", "nonesuch=1", folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_a_refusal_touches_nothing_in_a_folder_that_is_there(tmp_path):
    own = tmp_path / "my-service" / "own.txt"
    own.parent.mkdir()
    own.write_text("Somebody's.", encoding="utf-8")
    done = cookiecutter(TEMPLATE, "--no-input", "--overwrite-if-exists", "description= ", folder=tmp_path)
    assert done.returncode == 1
    assert 'description: " " is refused' in done.stdout + done.stderr
    assert list((tmp_path / "my-service").rglob("*")) == [own]
    assert own.read_text(encoding="utf-8") == "Somebody's."
