"""Flower's events, on their way into the figures too."""

from functools import partial
from typing import Any

from flower.events import Events

from app.monitor.figures import Figures


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
        self.state.event(event)
        if event["type"].startswith("task-"):
            self.figures.observe(event, self.state.tasks[event["uuid"]])
        elif event["type"] == "worker-offline" or event.get("active") == 0:
            # A heartbeat that tells of nothing at work mends what an event that got lost has left.
            self.figures.forget_worker(event["hostname"])

    def alive(self) -> set[str]:
        """The workers whose heartbeat is heard; nothing is at work on the others."""
        workers = {name: worker.alive for name, worker in self.state.workers.items()}
        for name in [name for name, alive in workers.items() if not alive]:
            self.figures.forget_worker(name)
        return {name for name, alive in workers.items() if alive}
