"""Rejection of cross-origin requests."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.api.problems import problem_response
from app.core.origin import rejection


class CheckOrigin:
    """ASGI middleware that answers a rejected request with problem details.

    Without `API_KEYS` the API is unauthenticated, so any page open on this machine could submit tasks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on; opening a WebSocket counts as an unsafe method."""
        is_request = scope["type"] != "lifespan"
        rejected = rejection(scope.get("method", "WEBSOCKET"), Headers(scope=scope)) if is_request else None
        await (problem_response(*rejected) if rejected else self.app)(scope, receive, send)
