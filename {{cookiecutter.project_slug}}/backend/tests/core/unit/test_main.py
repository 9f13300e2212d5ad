import re
import socket

import pytest
import uvicorn
from alembic import command
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from app.core.errors import ConfigurationError
from app.main import create_app, listener, migrate


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


@pytest.mark.parametrize("reason", ['password authentication failed for user "app"', 'database "app" does not exist'])
def test_start_reports_the_fix_when_postgresql_rejects_the_login(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def reject(*_: object) -> None:
        raise OperationalError(None, None, Exception(f"connection failed: FATAL:  {reason}"))

    monkeypatch.setattr(command, "upgrade", reject)
    with pytest.raises(ConfigurationError, match=r"db-data .* in \.env"):
        migrate()
