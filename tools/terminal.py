"""Record the terminal session in README.md: `uv run python -m tools.terminal` writes `docs/terminal-*.svg`.

The commands are executed, and their real output is shown, without the progress of Docker. Needs Docker and the ports
of a rendered project.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI
from rich.text import Text

from tools.pieces import ROOT

SLUG = "acme-orders"
RENDER = 'uvx cookiecutter gh:ORG/flowerpot --no-input project_name="Acme Orders"'
START = "docker compose up --build --wait"
TASK = 'curl -fsS -X POST "http://localhost:8060/tasks/add?x=2&y=3&wait=10"'
THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}
WIDTH = 100  # columns


def record() -> list[tuple[str, str]]:
    """Execute the commands in a temporary folder; return each with its output.

    The template of this checkout is rendered, not the published one.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / SLUG
        rendered = render(Path(folder))
        try:
            started = run(START.split(), project)
            answer = run(["bash", "-c", TASK], project)
        finally:
            run(["docker", "compose", "down", "--volumes", "--rmi", "local"], project)
    healthy = sorted(set(re.findall(rf"Container {SLUG}-\S+ +Healthy", started)))
    return [(RENDER, rendered), (f"cd {SLUG}", ""), (START, "\n".join(healthy)), (TASK, answer)]


def render(folder: Path) -> str:
    """Render the project, and return the output."""
    return run([sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "project_name=Acme Orders"], folder)


def run(command: list[str], folder: Path) -> str:
    """Execute a command and return its output."""
    done = subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.strip("\n")


def draw(session: list[tuple[str, str]], theme: str) -> str:
    """Return a session as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for command, output in session:
        console.print(Text("$ ", "green") + Text(command, "bold"))
        if output:
            console.print(Text(output + "\n"))
    svg = console.export_svg(title=SLUG, theme=THEMES[theme], unique_id=f"terminal-{theme}")
    return re.sub(r" *@font-face {.*?}\n", "", svg, flags=re.S)  # of another server


if __name__ == "__main__":
    recorded = record()
    for name in THEMES:
        (ROOT / "docs" / f"terminal-{name}.svg").write_text(draw(recorded, name), encoding="utf-8", newline="\n")
