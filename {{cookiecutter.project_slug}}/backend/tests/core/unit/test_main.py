import socket

import uvicorn

from app.main import create_app, listener


def test_connections_send_small_responses_at_once() -> None:
    with listener(uvicorn.Config("app.main:create_app", factory=True, host="127.0.0.1", port=0)) as bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()):
            accepted, _ = bound.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_title_and_description_are_the_projects() -> None:
    app = create_app()
    assert app.title
    assert app.description
