"""HTTP handlers that extend or replace Flower's own."""

import time
from pathlib import Path

from flower.api import BaseApiHandler
from flower.api.tasks import GetQueueLengths
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from flower.views.error import NotFoundErrorHandler
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from app.core.monitor import queue_states
from app.core.monitor.stats import LONGEST, SHORTEST

HERE = Path(__file__).resolve().parent


class Dashboard(BaseHandler):
    """`/dashboard`."""

    @authenticated
    def get(self) -> None:
        """Render the page; its script fetches the data."""
        self.render("dashboard.html")


class Monitor(BaseHandler):
    """`/monitor`, the dashboard's path in Flower 1."""

    @authenticated
    def get(self) -> None:
        """Redirect to the dashboard."""
        self.redirect(self.reverse_url("dashboard"), permanent=True)


class DashboardData(BaseApiHandler):
    """`GET /api/dashboard?minutes=5&task=…&worker=…`: data of the dashboard."""

    @authenticated
    def get(self) -> None:
        """Return the statistics of a period; 400 if its length is invalid, 404 if the task or worker is unknown."""
        minutes = self.get_argument("minutes", SHORTEST, type=int)
        if not SHORTEST <= minutes <= LONGEST:
            raise HTTPError(400, f"minutes: {minutes} is invalid (use a whole number from {SHORTEST} to {LONGEST})")
        task, worker = (self.get_argument(name, None, escape=False) or None for name in ("task", "worker"))
        events = self.application.events
        alive, stats = events.alive(), events.stats
        if task is not None and task not in stats.tasks and task not in self.capp.tasks:
            raise HTTPError(404, f"task not found: {task}")
        if worker is not None and worker not in stats.workers and worker not in events.state.workers:
            raise HTTPError(404, f"worker not found: {worker}")
        self.write(stats.report(time.time(), minutes, alive, task, worker))


class WorkersStats(BaseApiHandler):
    """`GET /api/workers/stats?refresh=1`: `{worker: stats}` of the online workers."""

    @authenticated
    async def get(self) -> None:
        """Return the cached statistics, after an inspection with `refresh` or if a worker is new."""
        alive, known = self.application.events.alive(), self.application.workers
        if self.get_argument("refresh", False, type=bool) or not alive <= set(known):
            await self.application.update_workers()
        self.write({name: known[name]["stats"] for name in sorted(alive) if "stats" in known.get(name, {})})


class AllQueues(BaseHandler):
    """Base of handlers that list queues: all of the service, and others that a worker consumes."""

    def get_active_queue_names(self) -> list[str]:
        """Return the queue names."""
        return sorted({*super().get_active_queue_names(), *queue_states.names()})


class Broker(AllQueues, BrokerView):
    """`/broker`."""


class QueueLengths(AllQueues, GetQueueLengths):
    """`GET /api/queues/length`."""


HANDLERS = [
    url("/dashboard", Dashboard, name="dashboard"),
    url(r"/dashboard/(dashboard\.(?:js|css))", StaticFileHandler, {"path": str(HERE)}),
    url("/monitor", Monitor),
    url("/api/dashboard", DashboardData),
    url("/api/workers/stats", WorkersStats),
    url("/broker", Broker),
    url("/api/queues/length", QueueLengths),
    url("/metrics", NotFoundErrorHandler),
]
"""Handlers that take precedence over Flower's."""
