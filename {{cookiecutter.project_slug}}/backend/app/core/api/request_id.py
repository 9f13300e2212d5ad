"""Ids of requests, which connect the log lines of a request and of the runs that it enqueues."""

import re
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from app.core.api.problems import problem_response

logger = structlog.get_logger(__name__)

HEADER = "X-Request-ID"
VALID = re.compile(r"[\w.:-]{1,100}", re.ASCII)


class RequestId:
    """ASGI middleware: takes the id of a request from `X-Request-ID` or makes one, and returns it in the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id in the log context; an invalid id is replaced, and an exception answered."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if VALID.fullmatch(given) else uuid4().hex
        is_answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                if is_answered:
                    raise
                logger.exception("request failed", method=scope["method"], path=scope["path"])
                await problem_response(500, "internal error; the log has the traceback")(scope, receive, send_with_id)
