"""Flower, with what this project adds to it."""

import time
from base64 import b64decode
from pathlib import Path
from typing import Any, override
from urllib.parse import urlparse

from flower.app import Flower, rewrite_handler
from flower.utils.broker import Broker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado import template, web
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback

from app.celery_app import QUEUE
from app.monitor import pages
from app.monitor.events import ObservedEvents

METRICS_PORT = 5556
"""Prometheus asks here, without a password: docker-compose.yml publishes it nowhere."""

LOOK_INTERVAL = 5  # seconds


class Application(Flower):
    """Flower's own application with our pages before its own, and our rules before both."""

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
        self.add_handlers(".*", [rewrite_handler(each, prefix) if prefix else each for each in pages.HANDLERS])
        self.add_transform(NoForeignReaders)

    @override
    def start_http_server(self) -> Any:
        web.Application([("/metrics", Metrics, {"flower": self})]).listen(METRICS_PORT)
        return super().start_http_server()

    @override
    def start(self) -> None:
        """Run until the process is told to stop; workers are asked about themselves as soon as they are heard of."""
        self.events.start()
        self.started = True
        PeriodicCallback(self.look, LOOK_INTERVAL * 1000).start()
        self.io_loop.start()

    async def look(self) -> None:
        """Note what is at work and what waits, and get to know the workers that are new."""
        alive = self.events.alive()
        if not alive <= set(self.workers):
            self.update_workers()
        broker = Broker(self.broker_uri_with_password, http_api=self.options.broker_api)
        queues = await broker.queues(pages.QUEUES)
        lengths = {queue["name"]: queue.get("messages_ready", 0) for queue in queues}
        self.events.figures.look(time.time(), lengths, QUEUE, alive)

    @override
    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        if is_foreign(request):
            return self.get_handler_delegate(request, web.ErrorHandler, {"status_code": 403})
        if not is_ascii_login(request):  # which Flower cannot compare, and answers with 500
            del request.headers["Authorization"]
        return super().find_handler(request, **kwargs)


def is_foreign(request: HTTPServerRequest) -> bool:
    """Whether a page of another site sends this, to change something. Flower asks only where it has a password."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return False
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site:
        return site not in {"same-origin", "none"}
    return bool(origin) and urlparse(origin).netloc != request.host


def is_ascii_login(request: HTTPServerRequest) -> bool:
    """Whether a user and a password that come with a request, if they do, are ASCII, as all that are right are."""
    try:
        return b64decode(request.headers.get("Authorization", "").partition(" ")[2]).isascii()
    except ValueError:
        return True


class NoForeignReaders(web.OutputTransform):
    """Takes back what Flower allows to the pages of other sites where it has no password: to read all it knows."""

    @override
    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        for name in [name for name in headers if name.startswith("Access-Control-")]:
            del headers[name]
        return status_code, headers, chunk


class Templates(template.Loader):
    """Flower's templates, its menu with a link to the dashboard, and the dashboard's own."""

    @override
    def _create_template(self, name: str) -> template.Template:
        if name == "navbar.html":
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            link = (Path(__file__).parent / "link.html").read_text(encoding="utf-8")
            return template.Template(text.replace("</ul>", f"{link}</ul>", 1), name=name, loader=self)
        return super()._create_template(name)


class Metrics(web.RequestHandler):
    """Flower's metrics, which it would show to everybody."""

    def initialize(self, flower: Flower) -> None:
        """Take the application whose metrics these are."""
        self.flower = flower

    def get(self) -> None:
        """Write them in Prometheus' format."""
        self.flower.purge_offline_worker_metrics()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(generate_latest())
