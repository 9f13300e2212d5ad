"""Event receiver that updates the dashboard's statistics."""

import time
from typing import Any

from celery.states import READY_STATES
from flower.events import Events

from app.core.monitor.stats import Stats

WORKER_TIMEOUT = 60  # seconds without a heartbeat until a worker's active tasks are dropped


class ObservedEvents(Events):
    """Flower's event receiver, extended by the dashboard's statistics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stats = Stats()
        self.stats.restore(self.state.tasks.values())

    def on_event(self, event: dict[str, Any]) -> None:
        """Pass an event from the receiver's thread to the event loop."""
        self.io_loop.add_callback(self._apply, event)

    def _apply(self, event: dict[str, Any]) -> None:
        known = self.state.tasks.data.get(event.get("uuid"))
        had_ended = known is not None and known.state in READY_STATES  # its message was redelivered
        if had_ended and event.get("attempts") and event["timestamp"] > known.timestamp:  # an operator runs it again
            self.state.tasks.pop(event["uuid"])
            had_ended = False
        self.state.event(event)
        if event["type"].startswith("task-"):
            if not had_ended:
                self.stats.observe(event, self.state.tasks[event["uuid"]])
        elif event["type"] == "worker-offline" or event.get("active") == 0:
            # A heartbeat of an idle worker corrects the count after a lost event.
            self.stats.clear_active(event["hostname"])

    def alive(self) -> set[str]:
        """Return the online workers, and drop the active tasks of workers without a recent heartbeat."""
        for name, worker in self.state.workers.items():
            if not worker.alive and time.time() - max(worker.heartbeats, default=0) > WORKER_TIMEOUT:
                self.stats.clear_active(name)
        return {name for name, worker in self.state.workers.items() if worker.alive}
