"""Flower's application, with this project's extensions."""

import time
from base64 import b64decode
from pathlib import Path
from typing import Any, override

from flower.app import Flower, rewrite_handler
from flower.utils.broker import Broker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado import template, web
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback

from app.core.monitor import handlers, queue_states, runs
from app.core.monitor.events import ObservedEvents
from app.core.origin import rejection

METRICS_PORT = 5556  # without authentication; docker-compose.yml does not publish it
SAMPLE_INTERVAL = 5  # seconds
INSERTIONS = {
    "base.html": ("</head>", "stylesheet.html"),
    "navbar.html": ("</ul>", "link.html"),
    "task.html": ("{% if not read_only %}", "history_link.html"),
}
"""Flower's templates that are extended: the text before which a file is inserted, and the file."""


class Application(Flower):
    """Flower's application with additional handlers, statistics and stricter request checks."""

    def __init__(self, options: Any, capp: Any, **settings: Any) -> None:
        events = ObservedEvents(
            capp,
            IOLoop.current(),
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=options.enable_events,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        loader = Templates(settings["template_path"])
        super().__init__(options=options, capp=capp, events=events, template_loader=loader, **settings)
        prefix = options.url_prefix
        added = [*handlers.HANDLERS, *runs.HANDLERS]
        self.add_handlers(".*", [rewrite_handler(each, prefix) if prefix else each for each in added])
        self.add_transform(StripCorsHeaders)

    @override
    def start_http_server(self) -> Any:
        web.Application([("/metrics", Metrics)], flower=self).listen(METRICS_PORT)
        return super().start_http_server()

    @override
    def start(self) -> None:
        """Run until the process is stopped; workers are inspected when their first event arrives."""
        self.events.start()
        self.started = True
        PeriodicCallback(self.sample, SAMPLE_INTERVAL * 1000).start()
        self.io_loop.start()

    async def sample(self) -> None:
        """Record running tasks and queue states, and inspect new workers."""
        alive = self.events.alive()
        if not alive <= set(self.workers):
            self.update_workers()
        broker = Broker(self.broker_uri_with_password, http_api=self.options.broker_api)
        states = queue_states.parse(await broker.queues(queue_states.names()))
        queue_states.export(states)
        self.events.stats.sample(time.time(), states, alive)

    @override
    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        if rejected := rejection(request.method or "", request.headers):
            status, error = rejected
            return self.get_handler_delegate(request, Rejected, {"status_code": status, "error": error})
        if not has_ascii_credentials(request):  # Flower would fail to compare them, and answer 500
            del request.headers["Authorization"]
        return super().find_handler(request, **kwargs)


def has_ascii_credentials(request: HTTPServerRequest) -> bool:
    """Return whether the basic-auth credentials are ASCII, as all valid ones are; true without credentials."""
    try:
        return b64decode(request.headers.get("Authorization", "").partition(" ")[2]).isascii()
    except ValueError:
        return True


class Rejected(web.ErrorHandler):
    """The answer to a request that `app.core.origin` rejects; Flower checks origins only with authentication."""

    def initialize(self, status_code: int, error: str = "") -> None:
        """Set the status and the error."""
        super().initialize(status_code)
        self.error = error

    @override
    def prepare(self) -> None:
        self.finish(self.error)


class StripCorsHeaders(web.OutputTransform):
    """Removes the CORS headers by which Flower without authentication lets pages of other sites read its data."""

    @override
    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        for name in [name for name in headers if name.startswith("Access-Control-")]:
            del headers[name]
        return status_code, headers, chunk


class Templates(template.Loader):
    """Flower's templates with links to the pages of this folder and an additional stylesheet, and those pages."""

    @override
    def _create_template(self, name: str) -> template.Template:
        if (handlers.HERE / name).is_file():
            return template.Template((handlers.HERE / name).read_text(encoding="utf-8"), name=name, loader=self)
        if name not in INSERTIONS:
            return super()._create_template(name)
        before, file = INSERTIONS[name]
        inserted = (handlers.HERE / file).read_text(encoding="utf-8")
        text = (Path(self.root) / name).read_text(encoding="utf-8").replace(before, f"{inserted}{before}", 1)
        return template.Template(text, name=name, loader=self)


class Metrics(web.RequestHandler):
    """Flower's metrics and the queue metrics; Flower's own `/metrics` has no authentication."""

    def get(self) -> None:
        """Return the metrics in Prometheus' text format."""
        self.settings["flower"].purge_offline_worker_metrics()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(generate_latest())
