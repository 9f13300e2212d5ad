"""API keys: with `API_KEYS`, every request needs one, except for health checks and the documentation."""

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from app.core.api.problems import problem_response, responses

OPEN = ("/health/", "/static-offline-docs/")
"""Prefixes of paths that need no key."""

OPEN_PATHS = ("/", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
"""Paths that need no key; the pages of the documentation have a field for it."""

SCHEME = "API key"
"""Name of the security scheme in the OpenAPI document."""


class RequireKey:
    """ASGI middleware that answers requests without a valid key, as in `Authorization: Bearer KEY`, with 401.

    The name of the key is in the log lines of the request, and in the rows of the runs that it enqueues.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, str]) -> None:
        self.app = app
        self._keys = {name: key.encode() for name, key in keys.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on."""
        if scope["type"] == "lifespan" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        scheme, _, given = Headers(scope=scope).get("Authorization", "").partition(" ")
        name = self._name(given.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            detail = "API key missing or invalid (send the header Authorization: Bearer KEY)"
            rejection = problem_response(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
            await rejection(scope, receive, send)
            return
        with bound_contextvars(api_key=name):
            await self.app(scope, receive, send)

    def _name(self, given: str) -> str | None:
        """Return the name of a key; its time does not reveal how many characters are right, nor of which key."""
        sent = given.encode()
        matches = [name for name, key in self._keys.items() if hmac.compare_digest(key, sent)]
        return matches[0] if matches else None


def is_open(path: str) -> bool:
    """Return whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN)


def install(app: FastAPI, keys: Mapping[str, str]) -> None:
    """Require one of these keys, by name, and describe the scheme in the OpenAPI document; nothing without keys."""
    if not keys:
        return
    app.add_middleware(RequireKey, keys=keys)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in () if is_open(path) else operations.values():
                operation["security"] = [{SCHEME: []}]
                operation["responses"] |= {str(code): each for code, each in responses(HTTPStatus.UNAUTHORIZED).items()}
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it
