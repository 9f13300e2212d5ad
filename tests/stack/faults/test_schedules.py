"""Schedules with several relays, of which most are killed and have a wrong clock, and without the broker."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.conftest import SLUG, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.ledger import Ledger

SECONDS = 120
OTHERS = [f"{SLUG}-relay-{number}" for number in (2, 3)]
SCHEDULE = '''"""A tick a second."""

from app.core.tasks import every, schedule
from app.features.faults.tasks import effect

schedule(effect, every(1), name="ticking", arguments={"seconds": 0})
'''


@pytest.fixture
def libfaketime() -> Path:
    """Return the library that changes the clock of a process; without it, skip the test or fail it in a pipeline."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "libfaketime not found (install the package faketime)"
        )
    return found[0]


class Clock:
    """The clock of the additional containers, which a file sets."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "offset"
        self.step("+0s")
        shutil.copyfile(library, folder / "libfaketime.so")
        folder.chmod(0o755)
        self.options = (
            *("--volume", f"{folder}:/clock:ro", "--env", "LD_PRELOAD=/clock/libfaketime.so"),
            *("--env", "FAKETIME_TIMESTAMP_FILE=/clock/offset"),
            *("--env", "FAKETIME_NO_CACHE=1", "--env", "FAKETIME_DONT_FAKE_MONOTONIC=1"),
        )

    def step(self, offset: str) -> None:
        """Set the difference to the clock of this machine."""
        self._file.write_text(offset, encoding="utf-8")

    def difference(self, container: str) -> float:
        """Return the seconds by which the clock of a container is ahead."""
        program = "import time; print(time.time())"
        return float(faults.docker("exec", container, "python", "-c", program)) - time.time()


@contextlib.contextmanager
def ticking(stack: Stack, clock: Clock) -> Iterator[None]:
    """Deploy a version with a schedule, and two more containers of the API."""
    file = stack.project.path / "backend" / "app" / "features" / "faults" / "schedule.py"
    file.write_text(SCHEDULE, encoding="utf-8")
    try:
        stack.up("--build")
        for name in OTHERS:
            stack.compose("run", "--detach", "--no-deps", *clock.options, "--name", name, "backend")
        yield
    finally:
        with contextlib.suppress(Exception):
            faults.docker("rm", "--force", *OTHERS)
        file.unlink()
        stack.up("--build")


def test_each_tick_is_enqueued_once(stack: Stack, ledger: Ledger, libfaketime: Path, tmp_path: Path) -> None:
    clock = Clock(tmp_path, libfaketime)
    with ticking(stack, clock):
        last = "SELECT last_tick FROM schedules WHERE name = 'ticking'"
        wait_until(lambda: (ledger.execute(last) or [(None,)])[0][0], 30, "the first tick")
        [(since,)] = ledger.execute("SELECT last_tick + interval '5 s' FROM schedules WHERE name = 'ticking'")
        for offset in (60, -60):
            clock.step(f"{offset:+d}s")
            assert abs(clock.difference(OTHERS[0]) - offset) < 10
            with faults.stopped(stack, "backend"):  # only relays with a wrong clock are left
                before = ledger.execute(last)
                faults.hold(SECONDS / 8)
                assert ledger.execute(last) > before
        faults.docker("kill", OTHERS[0])
        with faults.stopped(stack, "rabbitmq"):
            faults.hold(20)
        faults.docker("kill", OTHERS[1])
        faults.hold(SECONDS / 2)
        assert stack.api.post("/schedules/ticking/pause").status_code == 200
        runs = "SELECT substr(id, 1, 8) || substr(id, 10, 4), state FROM task_runs WHERE substr(id, 15, 1) = '8'"
        faults.hold(2)
        wait_until(lambda: {state for _, state in ledger.execute(runs)} == {"SUCCESS"}, 60, "all runs to end")
        [(until,)] = ledger.execute(last)
        ticks = sorted(int(tick, 16) for tick, _ in ledger.execute(runs))
        expected = [*range(round(since.timestamp()), round(until.timestamp()) + 1)]
        assert len(expected) >= SECONDS * 0.9
        assert [tick for tick in ticks if tick >= expected[0]] == expected
