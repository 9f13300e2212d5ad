import contextlib
from pathlib import Path

import pytest

from app.core.monitor import access

BASIC = {"FLOWER_USER": "admin", "FLOWER_PASSWORD": "secret", "FLOWER_MORE_USERS": ""}
OAUTH = {
    "FLOWER_AUTH": "ann@example.com",
    "FLOWER_COOKIE_SECRET": "0123456789abcdef0123456789abcdef",
    "FLOWER_OAUTH2_KEY": "key",
    "FLOWER_OAUTH2_SECRET": "secret",
    "FLOWER_OAUTH2_REDIRECT_URI": "http://localhost:5555/login",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"FLOWER_PASSWORD": "with:colon and $ and blank"},
        {"FLOWER_MORE_USERS": "ann:one,bob:two"},
    ],
)
def test_check_accepts_valid_credentials(changes: dict[str, str]) -> None:
    environment = BASIC | changes
    access.check(environment)
    assert access.users(environment)[0] == f"admin:{environment['FLOWER_PASSWORD']}"


def test_users_lists_every_user() -> None:
    assert access.users(BASIC | {"FLOWER_MORE_USERS": "ann:one,bob:two"}) == ["admin:secret", "ann:one", "bob:two"]
    assert access.users({}) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLOWER_PASSWORD", ""),
        ("FLOWER_PASSWORD", "pa,ss"),
        ("FLOWER_PASSWORD", "pässword"),
        ("FLOWER_MORE_USERS", "ann"),
        ("FLOWER_MORE_USERS", "ann:one,"),
        ("FLOWER_MORE_USERS", ":one"),
    ],
)
def test_check_rejects_unusable_credentials_without_printing_them(variable: str, value: str) -> None:
    with pytest.raises(SystemExit, match=rf"^{variable}: value is invalid \(use .*\)$") as rejected:
        access.check(BASIC | {variable: value})
    assert "\n" not in str(rejected.value)
    assert not value or value not in str(rejected.value)


@pytest.mark.parametrize("user", ["", "ad:min", "ad,min", "ädmin"])
def test_check_rejects_unusable_user(user: str) -> None:
    with pytest.raises(SystemExit, match=rf'^FLOWER_USER: "{user}" is invalid \(use .*\)$'):
        access.check(BASIC | {"FLOWER_USER": user})


@pytest.mark.parametrize("auth", ["ann@example.com", "ann@example.com|bob@example.com", ".*@example.com", "Ann@x.com"])
def test_check_accepts_email_pattern(auth: str) -> None:
    access.check(OAUTH | {"FLOWER_AUTH": auth})


@pytest.mark.parametrize(
    "auth", ["", ".*", "ann@.*", ".*@a.com|b@a.com", "[ab]@a.com", "(a|b)@a.com", "^ann@a.com$", "ann", "@a.com"]
)
def test_check_rejects_unsupported_email_pattern(auth: str) -> None:
    with pytest.raises(SystemExit, match=r"^FLOWER_AUTH: "):
        access.check(OAUTH | {"FLOWER_AUTH": auth})


@pytest.mark.parametrize("variable", sorted(OAUTH))
def test_check_rejects_oauth_when_a_variable_is_empty(variable: str) -> None:
    with pytest.raises(SystemExit, match=f"^{variable}: "):
        access.check(OAUTH | {variable: ""})


def test_check_applies_rules_of_each_provider() -> None:
    github = OAUTH | {"FLOWER_GITHUB_OAUTH_DOMAIN": "github.com"}
    access.check(github)
    for environment in (
        github | {"FLOWER_AUTH": "Ann@example.com"},
        github | {"FLOWER_GITHUB_OAUTH_DOMAIN": "https://github.com"},
        OAUTH | {"FLOWER_GITLAB_OAUTH_DOMAIN": ""},
        OAUTH | {"FLOWER_OAUTH2_OKTA_BASE_URL": "example.okta.com"},
    ):
        with pytest.raises(SystemExit, match="is invalid"):
            access.check(environment)


@pytest.mark.parametrize(
    ("prefix", "valid"), [("", True), ("flower", True), ("a/b", True), ("/flower", False), ("a b", False)]
)
def test_check_rejects_url_prefix_when_it_has_outer_slashes(prefix: str, *, valid: bool) -> None:
    with contextlib.nullcontext() if valid else pytest.raises(SystemExit, match="FLOWER_URL_PREFIX"):
        access.check({"FLOWER_URL_PREFIX": prefix})


def test_check_rejects_file_when_its_folder_is_not_writable(tmp_path: Path) -> None:
    access.check({"FLOWER_DB": str(tmp_path / "flower")})
    with pytest.raises(SystemExit, match=r'^FLOWER_DB: "/nowhere/flower" is invalid \(use a file in a folder '):
        access.check({"FLOWER_DB": "/nowhere/flower"})


def test_check_reports_every_violation_at_once() -> None:
    with pytest.raises(SystemExit) as rejected:
        access.check(OAUTH | {"FLOWER_OAUTH2_KEY": "", "FLOWER_OAUTH2_SECRET": ""})
    variables = [line.partition(":")[0] for line in str(rejected.value).splitlines()]
    assert variables == ["FLOWER_OAUTH2_KEY", "FLOWER_OAUTH2_SECRET"]
