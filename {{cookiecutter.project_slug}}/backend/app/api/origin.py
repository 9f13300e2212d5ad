"""Calls that a page of a foreign site makes a browser send."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import Request, Response

from app.api.problems import answer

SAFE = {"GET", "HEAD", "OPTIONS"}


async def refuse_foreign_pages(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer 403 to a call that changes something and comes from another site's page.

    The API asks nobody for a password, so any page that is open on this machine could send tasks otherwise. Browsers
    say where a call comes from (Fetch Metadata, W3C); other clients do not send that header.
    """
    if request.method not in SAFE and request.headers.get("Sec-Fetch-Site") == "cross-site":
        return answer(HTTPStatus.FORBIDDEN, "a page of another site may not do that")
    return await call_next(request)
