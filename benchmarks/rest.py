"""Processor, memory and disk that the project uses without any load."""

import time
from functools import partial

from benchmarks.bench import Bench
from benchmarks.measure import Result, interleaved

OURS = ("backend", "worker", "flower")
SMALLEST = 0.01  # percent of a core; readings vary by more than an idle second uses
UNITS = {"B": 1 / 2**20, "KiB": 1 / 2**10, "MiB": 1.0, "GiB": 2.0**10}


def restarted(bench: Bench, *references: str) -> None:
    """Start the services again, and wait until their start no longer uses the processor."""
    bench.start(*references)
    if not bench.quick:
        bench.compose("restart", *OURS)
        bench.start(*references)
    time.sleep(bench.seconds(10))


def processor(bench: Bench) -> list[Result]:
    """Measure the processor time of API, worker and Flower, with their health checks and without any request."""
    restarted(bench)

    def used() -> float:
        return sum(map(bench.processor_seconds, OURS))

    def share() -> float:
        first, before, began = used(), used(), time.monotonic()
        time.sleep(bench.seconds(10))  # the measured time
        asking = before - first  # a reading itself counts as processor time of the container
        idle = 100 * (used() - before - asking) / (time.monotonic() - began)
        return max(idle, SMALLEST)

    (shares,) = interleaved(bench.rounds, share)
    return [Result("rest/cpu", "of a core: backend, worker and flower, idle", "%", shares, reach="≤ 2 %")]


def memory(bench: Bench) -> list[Result]:
    """Compare the memory of API, worker and Flower with that of three interpreters that import the same modules.

    As `docker stats` shows it: without the page cache that the kernel can drop at once.
    """
    imports = [f"imports-{name}" for name in OURS]
    restarted(bench, *imports)

    def used(services: list[str]) -> float:
        time.sleep(bench.seconds(2))  # between rounds, so that their figures differ
        return sum(
            mebibytes(bench.compose("stats", "--no-stream", "--format", "{{.MemUsage}}", name)) for name in services
        )

    mine, bare = interleaved(bench.rounds, partial(used, list(OURS)), partial(used, imports))
    what = "memory of backend, worker and flower, idle"
    return [Result("rest/memory", what, "MiB", mine, "three interpreters with the same imports", bare, "≤ 1.3")]


def mebibytes(text: str) -> float:
    """Return the first of two amounts, such as 78.5MiB / 512MiB."""
    amount = text.split("/")[0].strip()
    unit = amount.lstrip("0123456789.")
    return float(amount.removesuffix(unit)) * UNITS[unit]


def image(bench: Bench) -> list[Result]:
    """Compare the layers of the image above its base image with the layer of the virtual environment."""
    lines = bench.image_history()
    above = []
    for size, created in lines:
        if created.startswith('CMD ["python3"]'):  # the last line of the base image's Dockerfile
            break
        above.append((size / 2**20, created))
    (environment,) = [size for size, created in above if "/opt/venv /opt/venv" in created]
    total = sum(size for size, _ in above)
    what = "image over its base image"
    return [Result("rest/image", what, "MiB", [total], "its virtual environment", [environment], "≤ 1.1")]
