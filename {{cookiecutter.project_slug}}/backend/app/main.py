"""The API process: `python -m app.main` applies the migrations and serves."""

import contextlib
import json
import resource
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import override

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from uvicorn.supervisors import Multiprocess

from app import discovery, metrics, schema
from app.core import logs, tracing
from app.core.api import enqueue, health, keys, operations, problems, queues, runs
from app.core.api import schedules as schedules_api
from app.core.api.origin import CheckOrigin
from app.core.api.request_id import RequestId
from app.core.database import async_engine, relay_engine
from app.core.errors import ConfigurationError
from app.core.settings import settings
from app.core.tasks import retention, schedules
from app.core.tasks.registry import REGISTRY
from app.core.tasks.relay import Relay

BACKEND = Path(__file__).parent.parent
PORT = 8060


@contextlib.asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Run the relay, the schedules and the deletion of old runs while the API serves."""
    logs.configure()
    tracing.configure("backend")
    application.state.relay = Relay()
    async with (
        application.state.relay.running(),
        schedules.running(application.state.relay.wake),
        retention.running(),
    ):
        yield
    for engine in (async_engine(), relay_engine()):
        await engine.dispose()
    tracing.shutdown()


def operation_id(route: APIRoute) -> str:
    """Return the name of an endpoint: methods of generated clients are called by it."""
    return route.name


def create_app() -> FastAPI:
    """Return the application; its title and description are in `app/about.json`.

    Raises:
        ConfigurationError: a feature is invalid.
    """
    discovery.load_tasks()
    about = json.loads((BACKEND / "app" / "about.json").read_text(encoding="utf-8"))
    application = FastAPIOffline(  # /docs without assets of other servers
        title=about["title"],
        description=about["description"],
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        # Probes and the documentation make no spans.
        telemetry={"operation_spans": False, "exclude": lambda scope: keys.is_open(scope.get("path", ""))},
    )
    problems.install(application)
    keys.install(application, settings().keys)
    application.add_middleware(CheckOrigin)
    application.add_middleware(RequestId)
    application.add_middleware(metrics.CountRequests)
    core = [health, operations, runs, schedules_api, queues]
    tasks = enqueue.router(REGISTRY.values())  # before those with a path like /tasks/{task_id}
    routers = [tasks, *(module.router for module in core), *_feature_routers()]
    _check_endpoints(routers)
    for router in routers:
        application.include_router(router)

    @application.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return application


def _feature_routers() -> Iterator[APIRouter]:
    """Yield the router of every feature's endpoints.

    Raises:
        ConfigurationError: a feature is not an importable package, or its endpoints have no router.
    """
    for module in discovery.load("endpoints"):
        router = getattr(module, "router", None)
        if not isinstance(router, APIRouter):
            message = f"{module.__name__.replace('.', '/')}.py: no router (define router = APIRouter())"
            raise ConfigurationError(message)
        yield router


def _check_endpoints(routers: Iterable[APIRouter]) -> None:
    """Check that no two endpoints have the same name, or the same method and path.

    Raises:
        ConfigurationError: two have.
    """
    taken: dict[str, APIRoute] = {}
    for route in (each for router in routers for each in router.routes if isinstance(each, APIRoute)):
        for key in (route.name, *(f"{method} {route.path}" for method in sorted(route.methods or ()))):
            other = taken.setdefault(key, route)
            if other is not route:
                places = " and ".join(each.endpoint.__module__.replace(".", "/") + ".py" for each in (other, route))
                message = f"{places}: two endpoints are {key} (rename one of them)"
                raise ConfigurationError(message)


def listener(config: uvicorn.Config) -> socket.socket:
    """Return the socket that the API listens on; its connections send small responses at once.

    asyncio does so for its own sockets, but not for one that processes share: each response on a kept-alive
    connection took 44 ms, and takes 1 ms with this (measured with 4 processes, uvicorn 0.54).
    """
    bound = config.bind_socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


class Processes(Multiprocess):
    """uvicorn's processes, with a stop that leaves no connection unanswered.

    While they finish their requests, the socket of this parent process would accept connections that none serves.
    """

    @override
    def terminate_all(self) -> None:
        for each in self.sockets:
            each.close()
        super().terminate_all()


def main() -> None:
    """Apply the migrations, then serve with `BACKEND_PROCESSES` processes.

    Raises:
        SystemExit: a feature is invalid, or PostgreSQL rejects the login; nothing is served.
    """
    logs.configure()
    try:
        create_app()
        schema.migrate()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    metrics.serve()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each waiting request needs a descriptor
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        host="0.0.0.0",  # noqa: S104 (inside the container; docker-compose.yml publishes it on 127.0.0.1)
        port=PORT,
        workers=settings().backend_processes,
        timeout_graceful_shutdown=5,
        log_config=None,
        access_log=False,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after a graceful stop
        if config.workers > 1:
            Processes(config, sockets=[listener(config)]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener(config)])


if __name__ == "__main__":
    main()
