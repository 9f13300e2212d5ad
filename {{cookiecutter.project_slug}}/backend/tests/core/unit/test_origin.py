import pytest

from app.core import origin
from app.core.origin import rejection
from tests.core.unit.test_settings import settings


@pytest.fixture(autouse=True)
def public_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = settings(allowed_hosts="Flower.example.com, 192.0.2.1,[2001:db8::1]")
    monkeypatch.setattr(origin, "settings", lambda: names)


def status(method: str, **headers: str) -> int | None:
    """Return the status of a request that is rejected; the headers have underscores."""
    rejected = rejection(method, {name.replace("_", "-"): value for name, value in headers.items()})
    return rejected[0] if rejected else None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "WEBSOCKET"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8060",
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "evil.example/localhost",
        "localhost:8060:8060",
        "0.0.0.0:8060",
        "[::2]:8060",
        "example.com",
        "x.flower.example.com",
        ".",
        "",
    ],
)
def test_unknown_host_is_rejected(method: str, host: str) -> None:
    assert status(method, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin") == 400


def test_request_without_host_is_rejected() -> None:
    assert status("GET") == 400


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8060",
        "LOCALHOST:8060",
        "localhost.:8060",
        "127.0.0.1:8060",
        "[::1]:8060",
        "[::1]",
        "backend:8060",
        "flower:5555",
        "flower.example.com",
        "192.0.2.1:443",
        "[2001:DB8::1]",
    ],
)
def test_allowed_host_passes_with_and_without_its_origin(host: str) -> None:
    for method in ("GET", "POST"):
        assert status(method, Host=host) is None
        assert status(method, Host=host, Origin=f"http://{host}") is None
        assert status(method, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://evil.example:8060"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Origin": "http://127.0.0.1:8060"},
        {"Origin": "http://localhost:8060", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "chrome-extension://localhost"},
    ],
)
def test_cross_origin_request_is_rejected_unless_its_method_is_safe(headers: dict[str, str]) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "WEBSOCKET"):
        assert status(method, Host="localhost:8060", **headers) == 403
    for method in ("GET", "HEAD", "OPTIONS"):
        assert status(method, Host="localhost:8060", **headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://localhost:8060"},
        {"Origin": "http://Localhost:8060", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_same_origin_and_non_browser_requests_pass(headers: dict[str, str]) -> None:
    assert status("POST", Host="localhost:8060", **headers) is None


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("flower.example.com", "https://flower.example.com"),
        ("flower.example.com:443", "https://flower.example.com"),
        ("flower.example.com", "https://flower.example.com:443"),
        ("flower.example.com:80", "http://flower.example.com"),
        ("flower.example.com:8443", "https://flower.example.com:8443"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_scheme_and_default_port_make_no_difference_behind_a_proxy(host: str, own: str) -> None:
    assert status("POST", Host=host, Origin=own) is None
    assert status("POST", Host=host, Origin=f"{own}.evil.example") == 403
