"""Ways to render: at the prompts, from files, archives and repositories, into unusual paths."""

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

from tests.project import copy_template
from tests.variants import ANSWERS, TEMPLATE

BIN = Path(sys.executable).parent
COOKIECUTTER = str(BIN / "cookiecutter")
Files = dict[str, bytes]


def cookiecutter(*arguments: str | Path, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run cookiecutter in a folder, which is also its home; return the process."""
    given = {**os.environ, "HOME": str(folder), **env}
    command = [COOKIECUTTER, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=given)


def rendered(done: subprocess.CompletedProcess[str], project: Path) -> Files:
    """Return the content of every file of a project except .env."""
    assert done.returncode == 0, done.stderr
    paths = sorted(path for path in project.rglob("*") if path.is_file() and path.name != ".env")
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Render the defaults."""
    folder = tmp_path_factory.mktemp("plain")
    return rendered(cookiecutter(TEMPLATE, "--no-input", folder=folder), folder / "my-service")


def test_renders_differ_only_in_their_secrets(plain: Files, tmp_path: Path) -> None:
    assert rendered(cookiecutter(TEMPLATE, "--no-input", folder=tmp_path), tmp_path / "my-service") == plain
    assert (tmp_path / "my-service" / ".env").exists()


def test_answers_are_read_from_a_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("default_context: {project_name: Ours, result_backend: redis}", encoding="utf-8")
    files = rendered(cookiecutter("--config-file", config, "--no-input", TEMPLATE, folder=tmp_path), tmp_path / "ours")
    assert b"redis:8" in files["docker-compose.yml"]


def test_answers_are_read_from_a_replay(plain: Files, tmp_path: Path) -> None:
    """Cookiecutter stores the answers of its last run under the name of the template's folder."""
    first = cookiecutter(TEMPLATE, "--no-input", "project_name=Again", "ci=none", folder=tmp_path)
    files = rendered(first, tmp_path / "again")
    (stored,) = (tmp_path / ".cookiecutter_replay").glob("*.json")
    kept = tmp_path / "kept.json"
    kept.write_bytes(stored.read_bytes())
    replays: list[list[str | Path]] = [["--replay"], ["--replay-file", kept]]
    for number, replay in enumerate(replays):
        done = cookiecutter(*replay, "--output-dir", str(number), TEMPLATE, folder=tmp_path)
        assert rendered(done, tmp_path / str(number) / "again") == files
    assert set(plain) - set(files) == {
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/update.yml",
    }


def test_archive_renders_the_same(plain: Files, tmp_path: Path) -> None:
    copy_template(tmp_path / "packed" / "flowerpot")
    archive = shutil.make_archive(str(tmp_path / "flowerpot"), "zip", tmp_path / "packed", "flowerpot")
    assert zipfile.is_zipfile(archive)
    done = cookiecutter("--no-input", archive, folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_repository_renders_the_same_at_a_tag(plain: Files, tmp_path: Path) -> None:
    """Use the tag in README.md, with a later commit on the main branch."""
    origin = tmp_path / "flowerpot.git"
    copy_template(origin)
    tag = f"v{ANSWERS['__version']}"
    assert f"`--checkout {tag}`" in (TEMPLATE / "README.md").read_text(encoding="utf-8")
    git = ["git", "-c", "user.name=flowerpot", "-c", "user.email=flowerpot@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "One"], ["tag", tag]):
        subprocess.run([*git, *command], cwd=origin, check=True, capture_output=True)
    (origin / "cookiecutter.json").write_text("no longer JSON", encoding="utf-8")
    subprocess.run([*git, "commit", "-qam", "Two"], cwd=origin, check=True, capture_output=True)
    done = cookiecutter("--no-input", f"file://{origin}", "--checkout", tag, folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_path_with_spaces_and_unicode_renders_the_same(plain: Files, tmp_path: Path) -> None:
    place = tmp_path / "Übung 1, 测试"
    done = cookiecutter(TEMPLATE, "--no-input", "--output-dir", place, folder=tmp_path)
    assert rendered(done, place / "my-service") == plain


def test_defaults_render_the_same_without_hooks(plain: Files, tmp_path: Path) -> None:
    done = cookiecutter(TEMPLATE, "--no-input", "--accept-hooks", "no", folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain
    assert not (tmp_path / "my-service" / ".env").exists()


def test_rendering_needs_no_program_and_no_network(plain: Files, tmp_path: Path) -> None:
    """Use an empty PATH, and a Python that rejects every connection."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef reject(*_): raise OSError('network access')\nsocket.socket.connect = reject\n",
        encoding="utf-8",
    )
    assert hasattr(socket.socket, "connect")
    done = cookiecutter(TEMPLATE, "--no-input", folder=tmp_path, PATH="/nowhere", PYTHONPATH=str(tmp_path))
    assert rendered(done, tmp_path / "my-service") == plain
    assert "docker: not found (install it" in done.stdout


def test_prompts_take_text_literally(tmp_path: Path) -> None:
    """Text entered in a terminal is never evaluated."""
    typed = {"project_name": "Our {{ 7 * 7 }} $(id)", "project_slug": "ours", "result_backend": "2"}
    questions = [name for name in ANSWERS if not name.startswith("_")]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(COOKIECUTTER, [COOKIECUTTER, str(TEMPLATE)], {**os.environ, "HOME": str(tmp_path), "TERM": "dumb"})
    shown, deadline = "", time.monotonic() + 60
    for number, name in enumerate(questions, 1):
        while f"[{number}/{len(questions)}]" not in shown or not shown.rstrip(" ").endswith(":"):
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
        shown = ""
        os.write(terminal, f"{typed.get(name, '')}\n".encode())
    with contextlib.suppress(OSError):  # raised when the terminal is closed
        while time.monotonic() < deadline:
            shown += os.read(terminal, 65536).decode(errors="replace")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    about = json.loads((tmp_path / "ours" / "backend" / "app" / "about.json").read_text(encoding="utf-8"))
    assert about["title"] == typed["project_name"]
    assert "redis:8" in (tmp_path / "ours" / "docker-compose.yml").read_text(encoding="utf-8")


def test_older_cookiecutter_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "cookiecutter-2.6.0.dist-info").mkdir()
    (tmp_path / "cookiecutter-2.6.0.dist-info" / "METADATA").write_text("Name: cookiecutter\nVersion: 2.6.0\n")
    done = cookiecutter(TEMPLATE, "--no-input", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "cookiecutter 2.6.0 is too old: use 2.7 or newer" in done.stdout
    assert not (tmp_path / "my-service").exists()


def test_unknown_answer_changes_nothing(plain: Files, tmp_path: Path) -> None:
    """Cookiecutter drops it before any hook runs, so the template cannot reject it."""
    done = cookiecutter(TEMPLATE, "--no-input", "nonesuch=1", folder=tmp_path)
    assert rendered(done, tmp_path / "my-service") == plain


def test_violation_leaves_an_existing_folder_unchanged(tmp_path: Path) -> None:
    own = tmp_path / "my-service" / "own.txt"
    own.parent.mkdir()
    own.write_text("Mine.", encoding="utf-8")
    done = cookiecutter(TEMPLATE, "--no-input", "--overwrite-if-exists", "description= ", folder=tmp_path)
    assert done.returncode == 1
    assert 'description: " " is invalid' in done.stdout + done.stderr
    assert list((tmp_path / "my-service").rglob("*")) == [own]
    assert own.read_text(encoding="utf-8") == "Mine."
