from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.api.transaction import current_relay
from app.core.logs import origin
from app.core.settings import settings
from app.core.tasks.relay import Relay
from app.main import create_app

KEYS = {"web": "a" * 20, "shop": "b" * 20, "flower": "c" * 20}
BEARER = {name: {"Authorization": f"Bearer {key}"} for name, key in KEYS.items()}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a client of an API with keys; an endpoint returns the name of the request's key."""
    monkeypatch.setenv("API_KEYS", f"web:{KEYS['web']},shop:{KEYS['shop']}")
    monkeypatch.setenv("FLOWER_API_KEY", KEYS["flower"])
    settings.cache_clear()
    app = create_app()
    app.dependency_overrides[current_relay] = Relay

    @app.get("/key")
    async def key() -> dict[str, Any]:
        return origin()

    yield TestClient(app, "http://localhost:8060", raise_server_exceptions=False)
    settings.cache_clear()


@pytest.mark.parametrize("name", KEYS)
def test_request_with_a_key_has_its_name(client: TestClient, name: str) -> None:
    assert client.get("/key", headers=BEARER[name]).json()["api_key"] == name
    assert origin()["api_key"] is None


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {'a' * 19}",
        f"Bearer {'a' * 21}",
        f"Basic {'a' * 20}",
        "a" * 20,
        "Bearer ä",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/tasks/"), ("POST", "/tasks/unknown"), ("GET", "/nowhere"), ("GET", "/healthy"), ("GET", "/docs-export")],
)
def test_request_without_a_valid_key_is_rejected(
    client: TestClient, method: str, path: str, authorization: str
) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")} if authorization else {}
    response = client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"
    assert "Authorization: Bearer KEY" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health/live"])
def test_health_and_documentation_need_no_key(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_documentation_describes_the_scheme(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"]
    assert document["components"]["securitySchemes"][scheme] == {"type": "http", "scheme": "bearer"}
    listed = document["paths"]["/tasks/"]["get"]
    assert listed["security"] == [{scheme: []}]
    assert "401" in listed["responses"]
    assert "security" not in document["paths"]["/health/live"]["get"]


def test_without_keys_the_api_is_open() -> None:
    document = TestClient(create_app(), "http://localhost:8060").get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in each for path in document["paths"].values() for each in path.values())
