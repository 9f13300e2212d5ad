"""A worker's sign of life: a file that its event loop touches, so that a health check looks at no more than its age."""

from pathlib import Path
from typing import Any

from celery import bootsteps, signals
from celery.worker import WorkController

FILE = Path("/tmp/worker.alive")  # noqa: S108 (a tmpfs of the container's own)
INTERVAL = 5.0  # seconds


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file as long as the worker's event loop turns, once the worker consumes."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: WorkController, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        FILE.unlink(missing_ok=True)

    def start(self, worker: WorkController) -> None:
        """Begin to touch."""
        timer: Any = worker.timer
        timer.call_repeatedly(INTERVAL, self.touch)

    def touch(self) -> None:
        """Say that the event loop turns, if the worker has begun to consume."""
        if FILE.exists():
            FILE.touch()

    def stop(self, worker: WorkController) -> None:  # noqa: ARG002 (the bootstep's interface)
        """Leave no sign of life behind."""
        FILE.unlink(missing_ok=True)


@signals.worker_ready.connect
def on_worker_ready(**_: Any) -> None:
    """The first touch says that the worker has begun to consume."""
    FILE.touch()
