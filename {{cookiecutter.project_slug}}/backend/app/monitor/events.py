"""Flower's events, on their way into the figures too."""

import time
from functools import partial
from typing import Any

from celery.states import READY_STATES
from flower.events import Events

from app.monitor.figures import Figures

SILENCE = 60  # seconds until a worker that is not heard of is given up


class ObservedEvents(Events):
    """Flower's own receiver, which tells the figures what it hears."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.figures = Figures()
        self.figures.restore(self.state.tasks.values())

    def on_event(self, event: dict[str, Any]) -> None:
        """Called in the receiver's thread; what it leads to happens in the event loop."""
        self.io_loop.add_callback(partial(self._apply, event))

    def _apply(self, event: dict[str, Any]) -> None:
        known = self.state.tasks.data.get(event.get("uuid"))
        had_ended = known is not None and known.state in READY_STATES  # its message was delivered again
        self.state.event(event)
        if event["type"].startswith("task-"):
            if not had_ended:
                self.figures.observe(event, self.state.tasks[event["uuid"]])
        elif event["type"] == "worker-offline" or event.get("active") == 0:
            # A heartbeat that tells of nothing at work mends what an event that got lost has left.
            self.figures.forget_worker(event["hostname"])

    def alive(self) -> set[str]:
        """The workers whose heartbeat is heard; what others were at is forgotten when they stay silent."""
        for name, worker in self.state.workers.items():
            if not worker.alive and time.time() - max(worker.heartbeats, default=0) > SILENCE:
                self.figures.forget_worker(name)
        return {name for name, worker in self.state.workers.items() if worker.alive}
