"""Resource use of Flower with 20,000 tasks, and of its open dashboard: `uv run python -m benchmarks.flower`.

Renders and starts the default project, sends the events of 20,000 tasks to Flower, and prints its memory, the size of
its saved history, the time of a stop and of a start, and its CPU use with and without an open dashboard. Takes about
four minutes, and removes its containers.
"""

import tempfile
import time
from pathlib import Path

import httpx2
from cookiecutter.main import cookiecutter

from tests.project import Project
from tests.stack import browser
from tests.stack.conftest import SLUG, Stack, wait_until
from tests.variants import TEMPLATE, Variant

TASKS = 20_000
SECONDS = 60

EVENTS = f"""
from app.celery_app import celery_app
with celery_app.connection_for_write() as connection, celery_app.events.Dispatcher(connection) as dispatcher:
    for number in range({TASKS}):
        id = f"00000000-0000-4000-8000-{{number:012}}"
        name = ("add", "fail", "flaky", "slow")[number % 4]
        dispatcher.send("task-received", uuid=id, name=name, args="()", kwargs="{{'x': 2.0, 'y': 3.0}}", retries=0)
        dispatcher.send("task-started", uuid=id)
        dispatcher.send("task-succeeded", uuid=id, result="5.0", runtime=0.02)
"""

USED = """
import os, pathlib
ticks = 0
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    if b"flowerconfig" in (stat.parent / "cmdline").read_bytes():
        ticks += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
print(ticks / os.sysconf("SC_CLK_TCK"))
"""


def processor_seconds(stack: Stack) -> float:
    """Return the CPU time of Flower's process."""
    return float(stack.compose("exec", "-T", "flower", "python", "-S", "-c", USED))


def share_of_a_core(stack: Stack) -> float:
    """Return the CPU use of Flower during a minute, in percent of a core, including one measurement."""
    before, began = processor_seconds(stack), time.monotonic()
    time.sleep(SECONDS)
    return 100 * (processor_seconds(stack) - before) / (time.monotonic() - began)


def task_count(stack: Stack) -> int:
    """Return the number of tasks in Flower."""
    table: dict[str, str | int] = {
        "draw": 1,
        "start": 0,
        "length": 1,
        "order[0][column]": 0,
        "columns[0][data]": "name",
    }
    return int(stack.flower.get("/tasks/datatable", params=table).json()["recordsTotal"])


def main() -> None:
    """Measure, and print the results."""
    with tempfile.TemporaryDirectory() as folder:
        rendered = cookiecutter(str(TEMPLATE), no_input=True, output_dir=folder, extra_context={"project_slug": SLUG})
        stack = Stack(Project(Path(rendered), Variant.of()))
        try:
            stack.up("--build")
            memory_before = memory(stack)
            stack.compose("exec", "-T", "backend", "python", "-c", EVENTS)
            wait_until(lambda: task_count(stack) >= TASKS, 120, "Flower to list all tasks")
            idle = share_of_a_core(stack)
            with browser.open_page(stack) as page:
                page.goto("/dashboard")
                page.locator("#dashboard-dot.status-dot-live").wait_for()
                opened = share_of_a_core(stack)
            memory_after = memory(stack)
            began = time.monotonic()
            stack.compose("stop", "flower")
            stopped = time.monotonic() - began
            began = time.monotonic()
            stack.compose("start", "flower")
            wait_until(lambda: is_ready(stack), 60, "Flower to respond")
            started = time.monotonic() - began
            size = stack.compose("exec", "-T", "flower", "du", "-sk", "/data").split()[0]
            print(f"memory: {memory_before} empty, {memory_after} with {task_count(stack):,} tasks")
            print(f"history on disk: {int(size) / 1024:.1f} MiB")
            print(f"stop, which saves: {stopped:.1f} s; start until it responds: {started:.1f} s")
            print(f"share of a core: {idle:.2f} % idle, {opened:.2f} % with an open dashboard")
        finally:
            stack.down()


def memory(stack: Stack) -> str:
    """Return the memory of Flower's container."""
    return stack.compose("stats", "--no-stream", "--format", "{{.MemUsage}}", "flower").split("/")[0].strip()


def is_ready(stack: Stack) -> bool:
    """Return whether Flower responds."""
    try:
        return stack.flower.get("/healthcheck").status_code == 200
    except httpx2.HTTPError:
        return False


if __name__ == "__main__":
    main()
