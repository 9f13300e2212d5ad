from datetime import UTC, datetime

import pytest
from fastapi import WebSocket
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.testclient import WebSocketDenialResponse

import tests.core.tasks  # noqa: F401 (its tasks have endpoints)
from app.core.api import health, runs
from app.core.api.runs import Cursor
from app.core.api.transaction import current_relay
from app.core.tasks import queues
from app.core.tasks.relay import Relay
from app.main import create_app

ITEM = {"day": "2026-01-31", "price": "1.5", "key": "00000000-0000-0000-0000-000000000001"}


@pytest.fixture
def client() -> TestClient:
    """Return a client of the API without its lifespan: no relay runs."""
    app = create_app()
    app.dependency_overrides[current_relay] = Relay
    return TestClient(app, "http://localhost:8060", raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("POST", "/tasks/core_slow?duration=long", "duration"),
        ("POST", "/tasks/core_slow?duration=nan", "duration"),
        ("POST", "/tasks/core_slow?durations=1", "durations"),
        ("POST", "/tasks/core_add?x=1", "y"),
        ("POST", "/tasks/core_add?x=1&y=1&wait=61", "wait"),
        ("POST", "/tasks/core_add?x=1&y=1&delay=-1", "delay"),
        ("POST", "/tasks/core_add?x=1&y=1&delay=1e9", "delay"),
        ("POST", "/tasks/core_price", "body"),
        ("POST", "/tasks/core_price?delays=60", "delays"),
        ("GET", "/tasks/history?state=DONE", "state"),
        ("GET", "/tasks/history?since=yesterday", "since"),
        ("GET", "/tasks/history?limit=0", "limit"),
        ("GET", "/tasks/history?argument==5", "argument"),
        ("GET", "/tasks/history?cursor=nonsense", "cursor"),
        ("GET", "/tasks/?limit=501", "limit"),
        ("POST", "/tasks/retry?all=true", "state"),
        ("POST", "/tasks/retry?state=STARTED&all=true", "state"),
        ("POST", "/tasks/retry?state=FAILURE", "all=true"),
        ("POST", "/tasks/revoke?state=SUCCESS&all=true", "state"),
        ("POST", "/tasks/revoke", "all=true"),
        ("GET", "/tasks/history?stat=FAILURE", "stat"),
        ("GET", "/tasks/?state=STARTED", "state"),
        ("POST", "/tasks/retry?state=FAILURE&name=core_add&sinc=2026-01-31T00:00:00Z", "sinc"),
        ("POST", "/tasks/revoke?name=core_add&untill=2026-01-31T00:00:00Z", "untill"),
    ],
)
def test_invalid_input_is_rejected_by_name(client: TestClient, method: str, path: str, named: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Content")
    assert named in problem["detail"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"factor": "2"}, "item"),
        ({"item": ITEM, "factor": "two"}, "factor"),
        ({"item": ITEM | {"day": "soon"}, "factor": "2"}, "item.day"),
        ({"item": ITEM, "factor": "2", "more": 1}, "more"),
    ],
)
def test_invalid_body_is_rejected_by_name(client: TestClient, body: object, named: str) -> None:
    response = client.post("/tasks/core_price", json=body)
    assert response.status_code == 422
    assert named in response.json()["detail"]


def test_body_for_query_parameters_is_rejected(client: TestClient) -> None:
    response = client.post("/tasks/core_slow", json={"duration": 5})
    assert (response.status_code, response.json()["detail"]) == (422, "body: the arguments are query parameters")


def test_cursor_of_nested_json_is_rejected(client: TestClient) -> None:
    nested = "W1tb" * 15_000
    assert client.get("/tasks/history", params={"cursor": nested}).status_code == 422


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/tasks/core_add", 405)])
def test_unknown_path_is_a_problem_document(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_task_without_endpoint_cannot_be_submitted(client: TestClient) -> None:
    assert client.post("/tasks/core_hidden").status_code == 405  # the path of GET /tasks/{task_id}


@pytest.mark.parametrize(
    ("method", "headers", "status", "detail"),
    [
        ("GET", {"Host": "evil.example:8060"}, 400, "host not allowed (add it to ALLOWED_HOSTS)"),
        ("POST", {"Host": "evil.example:8060"}, 400, "host not allowed (add it to ALLOWED_HOSTS)"),
        ("POST", {"Origin": "http://localhost:3000"}, 403, "cross-origin request rejected"),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403, "cross-origin request rejected"),
        ("POST", {"Origin": "http://localhost:8060"}, 404, "Not Found"),
        ("POST", {}, 404, "Not Found"),
    ],
)
def test_cross_origin_request_is_a_problem_document(
    client: TestClient, method: str, headers: dict[str, str], status: int, detail: str
) -> None:
    response = client.request(method, "/nowhere", headers=headers)
    assert (response.status_code, response.json()["detail"]) == (status, detail)
    assert response.headers["content-type"] == "application/problem+json"


def test_cross_origin_websocket_is_rejected() -> None:
    app = create_app()

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()

    client, url = TestClient(app), "ws://localhost:8060/echo"
    with client.websocket_connect(url, headers={"Origin": "http://localhost:8060"}):
        pass
    with (
        pytest.raises(WebSocketDenialResponse) as rejected,
        client.websocket_connect(url, headers={"Origin": "http://evil.example"}),
    ):
        pass
    assert rejected.value.status_code == 403


def test_unavailable_database_is_reported(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = create_async_engine("postgresql+psycopg://127.0.0.1:1/nowhere")
    for module in (runs, health):
        monkeypatch.setattr(module, "async_engine", lambda: nowhere)
    for method, path in (("POST", "/tasks/core_add?x=1&y=2"), ("GET", "/tasks/"), ("GET", "/tasks/some-id")):
        response = client.request(method, path)
        assert response.status_code == 503
        assert response.json()["detail"] == "the database is unavailable"
        assert response.headers["retry-after"] == "5"
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["database"]) == (503, "OperationalError")


def test_queue_without_consumer_is_reported_by_name(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def overdue() -> str:
        return ""

    class Connected(Relay):
        async def consumers(self) -> dict[str, int]:
            return {"celery": 1, "core-tests": 0}

    monkeypatch.setattr(health, "_overdue", overdue)
    monkeypatch.setattr(queues, "names", lambda: ["celery", "core-tests"])
    client.app.dependency_overrides[current_relay] = Connected  # type: ignore[attr-defined]
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "degraded"
    assert ready.json()["queues"] == {"celery": "ok", "core-tests": "no consumer"}


def test_openapi_describes_tasks_and_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for name in ("core_add", "core_price"):
        operation = document["paths"][f"/tasks/{name}"]["post"]
        assert operation["operationId"] == f"enqueue_{name}"
        assert {"200", "202", "422", "503"} <= set(operation["responses"])
        problem = operation["responses"]["422"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
    assert {"type", "title", "status", "detail"} == set(document["components"]["schemas"]["Problem"]["properties"])
    assert "/tasks/core_hidden" not in document["paths"]
    ids = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert {"list_active", "list_history", "get_task", "revoke_task", "get_live", "get_ready"} <= ids


def test_root_redirects_to_the_documentation(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


def test_cursor_survives_the_round_trip() -> None:
    cursor = Cursor(accepted_at=datetime.now(UTC), id="some-id")
    assert Cursor.decode(cursor.encode()) == cursor
