"""Times of a start, of a rebuild after a change, and of rendering, in seconds of wall clock."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.measure import Result, interleaved
from tests.variants import TEMPLATE


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of a call."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def up(bench: Bench) -> list[Result]:
    """Compare `docker compose up --wait` of all services with that of RabbitMQ alone.

    Images are built and volumes filled; no container exists before.
    """

    def started(*services: str) -> float:
        bench.compose("--profile", "*", "down", "--timeout", "5")
        return seconds(lambda: bench.up(*services))

    bench.start()
    bench.disconnect()
    broker, every = interleaved(bench.rounds, lambda: started("rabbitmq"), started)
    return [Result("start/up", "`up --wait` of all services", "s", every, "`rabbitmq` alone", broker, "≤ 1.5")]


def rebuild(bench: Bench) -> list[Result]:
    """Measure `up --build --wait` after a change of one source file."""
    bench.start()
    file = bench.project.path / "backend" / "app" / "features" / "demo" / "tasks.py"
    original = file.read_text(encoding="utf-8")
    before = layers(bench)

    def change() -> float:
        file.write_text(f"{original}\nCHANGED = {time.time()}\n", encoding="utf-8")
        return seconds(lambda: bench.up("--build"))

    try:
        (changed,) = interleaved(bench.rounds, change)
        rebuilt = len([layer for layer in layers(bench) if layer not in before])
    finally:
        file.write_text(original, encoding="utf-8")
    notes = {"layers rebuilt": f"{rebuilt} of {len(before)}"}
    what = "`up --build --wait` after a change of one source file"
    return [Result("start/rebuild", what, "s", changed, reach="≤ 5 s", notes=notes)]


def layers(bench: Bench) -> list[str]:
    """Return the digests of the layers of the project's image."""
    found: list[str] = json.loads(bench.inspect_image("{{json .RootFS.Layers}}"))
    return found


def render(bench: Bench) -> list[Result]:
    """Compare the process that renders the default project with `cookiecutter --version`."""
    command = [sys.executable, "-m", "cookiecutter"]

    def rendered() -> float:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--no-input", "--output-dir", folder, str(TEMPLATE)]
            return seconds(lambda: subprocess.run([*command, *options], check=True, capture_output=True))

    def version() -> float:
        return seconds(lambda: subprocess.run([*command, "--version"], check=True, capture_output=True))

    rendered()
    mine, cookiecutters = interleaved(bench.rounds, rendered, version)
    return [
        Result(
            "start/render", "rendering, whole process", "s", mine, "`cookiecutter --version`", cookiecutters, "≤ 1.5"
        )
    ]
