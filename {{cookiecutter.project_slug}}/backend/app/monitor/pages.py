"""The pages and calls that this project adds to Flower, or changes."""

import time
from pathlib import Path

from flower.api import BaseApiHandler
from flower.api.tasks import GetQueueLengths
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from flower.views.error import NotFoundErrorHandler
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from app.celery_app import QUEUE
from app.monitor.figures import LONGEST, SHORTEST

HERE = Path(__file__).resolve().parent
QUEUES = {QUEUE, "dead-letters"}


class Dashboard(BaseHandler):
    """`/dashboard`."""

    @authenticated
    def get(self) -> None:
        """Write the page; its script asks for the figures."""
        self.render(str(HERE / "dashboard.html"))


class Monitor(BaseHandler):
    """`/monitor`, the dashboard's name in Flower 1."""

    @authenticated
    def get(self) -> None:
        """Send to the new address."""
        self.redirect(self.reverse_url("dashboard"), permanent=True)


class DashboardFigures(BaseApiHandler):
    """`GET /api/dashboard?minutes=5&task=…&worker=…`: what the graphs show."""

    @authenticated
    def get(self) -> None:
        """Write the figures.

        Raises:
            HTTPError: 400 for a number of minutes that is none, or too large; 404 for a task or worker not heard of.
        """
        minutes = self.get_argument("minutes", SHORTEST, type=int)
        if not SHORTEST <= minutes <= LONGEST:
            raise HTTPError(400, f"minutes: {minutes} is refused: a whole number from {SHORTEST} to {LONGEST}")
        task, worker = (self.get_argument(name, None, escape=False) or None for name in ("task", "worker"))
        events = self.application.events
        alive, figures = events.alive(), events.figures
        if task is not None and task not in figures.tasks and task not in self.capp.tasks:
            raise HTTPError(404, f"Unknown task '{task}'")
        if worker is not None and worker not in figures.workers and worker not in events.state.workers:
            raise HTTPError(404, f"Unknown worker '{worker}'")
        self.write(figures.report(time.time(), minutes, alive, task, worker))


class WorkersStats(BaseApiHandler):
    """`GET /api/workers/stats?refresh=1`: `{worker: stats}` of the workers that are online."""

    @authenticated
    async def get(self) -> None:
        """Write what Flower knows; with `refresh`, or for a worker it does not know yet, it asks the workers first."""
        alive, known = self.application.events.alive(), self.application.workers
        if self.get_argument("refresh", False, type=bool) or not alive <= set(known):
            await self.application.update_workers()
        self.write({name: known[name]["stats"] for name in sorted(alive) if "stats" in known.get(name, {})})


class WithDeadLetters(BaseHandler):
    """Where Flower lists the queues that workers take from, list the dead letters, too."""

    def get_active_queue_names(self) -> list[str]:
        """The names of the queues."""
        return sorted({*super().get_active_queue_names(), *QUEUES})


class Broker(WithDeadLetters, BrokerView):
    """`/broker`."""


class QueueLengths(WithDeadLetters, GetQueueLengths):
    """`GET /api/queues/length`."""


HANDLERS = [
    url("/dashboard", Dashboard, name="dashboard"),
    url(r"/dashboard/(dashboard\.(?:js|css))", StaticFileHandler, {"path": str(HERE)}),
    url("/monitor", Monitor),
    url("/api/dashboard", DashboardFigures),
    url("/api/workers/stats", WorkersStats),
    url("/broker", Broker),
    url("/api/queues/length", QueueLengths),
    url("/metrics", NotFoundErrorHandler),
]
"""They come before Flower's own."""
