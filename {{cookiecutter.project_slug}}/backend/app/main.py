"""The API process: `python -m app.main` applies the migrations and serves."""

import contextlib
import json
import re
import resource
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import structlog
import uvicorn
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError
from uvicorn.supervisors import Multiprocess

from app import discovery
from app.core import logs
from app.core.api import enqueue, health, problems, runs
from app.core.api.origin import CheckOrigin
from app.core.database import async_engine
from app.core.errors import ConfigurationError
from app.core.settings import settings
from app.core.tasks.registry import REGISTRY
from app.core.tasks.relay import Relay

logger = structlog.get_logger(__name__)

BACKEND = Path(__file__).parent.parent
PORT = 8060
REJECTED = re.compile(r"password authentication failed|database .* does not exist")


@contextlib.asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Run the relay while the API serves."""
    logs.configure()
    application.state.relay = Relay()
    async with application.state.relay.running():
        yield
    await async_engine().dispose()


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
    )
    problems.install(application)
    application.add_middleware(CheckOrigin)
    routers = [health.router, enqueue.router(REGISTRY.values()), runs.router, *discovery.routers()]
    _check_endpoints(routers)
    for router in routers:
        application.include_router(router)

    @application.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return application


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


def migrate() -> None:
    """Apply the migrations; a database that a newer version has migrated is left as it is.

    Raises:
        ConfigurationError: PostgreSQL rejects the login.
    """
    try:
        command.upgrade(Config(BACKEND / "alembic.ini"), "heads")
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
        logger.warning("database is newer than this version, serving without migration", error=str(error))
    except OperationalError as error:
        if not REJECTED.search(str(error)):
            raise
        message = (
            "PostgreSQL: login rejected (the volume db-data keeps the POSTGRES_ values of its first start: restore them"
            " in .env, or delete all data with docker compose down --volumes)"
        )
        raise ConfigurationError(message) from None


def main() -> None:
    """Apply the migrations, then serve with `BACKEND_PROCESSES` processes.

    Raises:
        SystemExit: a feature is invalid, or PostgreSQL rejects the login; nothing is served.
    """
    logs.configure()
    try:
        create_app()
        migrate()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
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
            Multiprocess(config, sockets=[listener(config)]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener(config)])


if __name__ == "__main__":
    main()
