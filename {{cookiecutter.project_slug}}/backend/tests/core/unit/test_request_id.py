import re
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from app.core.logs import origin
from app.main import create_app


@pytest.fixture
def client() -> TestClient:
    """Return a client of an API with an endpoint that returns the origin of its request."""
    app = create_app()

    @app.get("/broken")
    async def broken() -> None:
        message = "boom"
        raise ValueError(message)

    @app.get("/request")
    async def request() -> dict[str, Any]:
        return origin()

    return TestClient(app, "http://localhost:8060", raise_server_exceptions=False)


def test_id_of_a_request_is_kept_and_returned(client: TestClient) -> None:
    response = client.get("/request", headers={"X-Request-ID": "client-4711"})
    assert (response.json()["request_id"], response.headers["x-request-id"]) == ("client-4711", "client-4711")
    assert origin()["request_id"] is None


@pytest.mark.parametrize("given", ["", "two words", "x" * 101, "<script>"])
def test_missing_or_invalid_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/request", headers={"X-Request-ID": given} if given else {})
    assert re.fullmatch(r"[0-9a-f]{32}", response.json()["request_id"])
    assert response.headers["x-request-id"] == response.json()["request_id"]


def test_exception_is_logged_and_answered_with_the_id(client: TestClient) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        response = client.get("/broken", headers={"X-Request-ID": "client-4711"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "client-4711")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "internal error; the log has the traceback"
    (line,) = lines
    assert (line["request_id"], line["path"], line["exc_info"]) == ("client-4711", "/broken", True)


def test_rejected_request_has_an_id(client: TestClient) -> None:
    response = client.get("/request", headers={"Host": "evil.example"})
    assert (response.status_code, len(response.headers["x-request-id"])) == (400, 32)
