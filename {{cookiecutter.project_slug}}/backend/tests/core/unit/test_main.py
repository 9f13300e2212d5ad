import re
import socket

import uvicorn
from fastapi.testclient import TestClient

from app.main import create_app, listener


def test_accepted_connections_have_tcp_nodelay() -> None:
    with listener(uvicorn.Config("app.main:create_app", factory=True, host="127.0.0.1", port=0)) as bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()):
            accepted, _ = bound.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_title_and_description_are_set() -> None:
    app = create_app()
    assert app.title
    assert app.description


def test_documentation_needs_no_other_server() -> None:
    client = TestClient(create_app(), "http://localhost:8060")
    for page in ("/docs", "/redoc"):
        assets = re.findall(r'(?:src|href)="([^"]+)"', client.get(page).text)
        assert assets
        assert [client.get(asset).status_code for asset in assets] == [200] * len(assets)
