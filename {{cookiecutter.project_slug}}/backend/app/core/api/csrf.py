"""Protection against cross-site requests that a browser sends for another site's page (CSRF)."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.api.problems import problem_response

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class RejectCrossOrigin:
    """ASGI middleware that answers 403 to a cross-site request with an unsafe method.

    The API is unauthenticated, so any page open on this machine could submit tasks otherwise. Browsers send the origin
    of a request (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/); other clients do not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on."""
        if scope["type"] == "http" and is_cross_origin(scope["method"], Headers(scope=scope)):
            response = problem_response(HTTPStatus.FORBIDDEN, "cross-site request rejected")
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_cross_origin(method: str, headers: Headers) -> bool:
    """Return whether another site's page sends this request, to change something."""
    return method not in SAFE_METHODS and headers.get("Sec-Fetch-Site") == "cross-site"
