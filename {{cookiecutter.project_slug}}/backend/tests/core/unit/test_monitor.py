import asyncio

import pytest
from flower.options import options
from flower.urls import settings
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from app.core.celery import celery_app
from app.core.monitor.application import Application


async def request(method: str, headers: dict[str, str]) -> HTTPResponse:
    """Send a request for a path that does not exist to Flower without authentication."""
    socket, port = bind_unused_port()
    server = HTTPServer(Application(options, celery_app, **settings))
    server.add_socket(socket)
    try:
        return await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{port}/nowhere",
            method=method,
            headers={"Host": "localhost:5555"} | headers,
            allow_nonstandard_methods=True,
            raise_error=False,
        )
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize(
    ("method", "headers", "status", "error"),
    [
        ("GET", {"Host": "evil.example:5555"}, 400, "host not allowed (add it to ALLOWED_HOSTS)"),
        ("POST", {"Host": "evil.example:5555"}, 400, "host not allowed (add it to ALLOWED_HOSTS)"),
        ("POST", {"Origin": "http://localhost:3000"}, 403, "cross-origin request rejected"),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403, "cross-origin request rejected"),
        ("POST", {"Origin": "http://localhost:5555"}, 404, ""),
        ("POST", {}, 404, ""),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 404, ""),
    ],
)
def test_cross_origin_request_is_rejected(method: str, headers: dict[str, str], status: int, error: str) -> None:
    response = asyncio.run(request(method, headers))
    assert (response.code, response.body.decode() if error else "") == (status, error)
