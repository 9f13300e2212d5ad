import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.logs import origin
from app.main import create_app


@pytest.fixture
def client() -> TestClient:
    """Return a client of an API with an endpoint that returns the origin of its request."""
    app = create_app()

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


def test_rejected_request_has_an_id(client: TestClient) -> None:
    response = client.get("/request", headers={"Host": "evil.example"})
    assert (response.status_code, len(response.headers["x-request-id"])) == (400, 32)
