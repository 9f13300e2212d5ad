from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import create_async_engine

from app.api import tasks
from app.api.dependencies import current_relay
from app.api.tasks import Cursor
from app.main import create_app
from app.relay import Relay


@pytest.fixture
def client() -> TestClient:
    """The API without its lifespan: no relay runs."""
    app = create_app()
    app.dependency_overrides[current_relay] = Relay
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("POST", "/tasks/slow?duration=long", "duration"),
        ("POST", "/tasks/slow?duration=-1", "duration"),
        ("POST", "/tasks/slow?duration=nan", "duration"),
        ("POST", "/tasks/slow?durations=1", "durations"),
        ("POST", "/tasks/add?x=1", "y"),
        ("POST", "/tasks/add?x=1&y=1&wait=61", "wait"),
        ("GET", "/tasks/history?state=DONE", "state"),
        ("GET", "/tasks/history?since=yesterday", "since"),
        ("GET", "/tasks/history?limit=0", "limit"),
        ("GET", "/tasks/history?cursor=nonsense", "cursor"),
        ("GET", "/tasks/?limit=501", "limit"),
    ],
)
def test_bad_input_is_refused_by_name(client: TestClient, method: str, path: str, named: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Content")
    assert named in problem["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/tasks/add", 405)])
def test_what_is_not_there_is_a_problem_document(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_foreign_page_sends_no_task(client: TestClient) -> None:
    for site, status in (("cross-site", 403), ("same-site", 422), ("same-origin", 422), (None, 422)):
        headers = {"Sec-Fetch-Site": site} if site else {}
        answer = client.post("/tasks/slow?duration=long", headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/health/live", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_database_that_is_away_is_said_so(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = create_async_engine("postgresql+psycopg://127.0.0.1:1/nowhere")
    monkeypatch.setattr(tasks, "async_engine", lambda: nobody)
    for method, path in (("POST", "/tasks/add?x=1&y=2"), ("GET", "/tasks/"), ("GET", "/tasks/some-id")):
        answer = client.request(method, path)
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the database does not answer"
        assert answer.headers["retry-after"] == "5"


def test_openapi_has_every_task_and_its_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for name in ("add", "fail", "flaky", "slow"):
        responses = document["paths"][f"/tasks/{name}"]["post"]["responses"]
        assert {"200", "202", "422", "503"} <= set(responses)
        problem = responses["422"]["content"]["application/problem+json"]["schema"]
        assert {"type", "title", "status", "detail"} == set(problem["properties"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_front_door_leads_to_the_documentation(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


def test_a_cursor_reads_back_what_it_wrote() -> None:
    cursor = Cursor(accepted_at=datetime.now(UTC), id="some-id")
    assert Cursor.decode(cursor.encode()) == cursor
