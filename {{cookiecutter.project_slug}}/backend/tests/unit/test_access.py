import contextlib
from pathlib import Path

import pytest

from app.monitor import access

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
def test_usable_passwords_are_taken(changes: dict[str, str]) -> None:
    environment = BASIC | changes
    access.check(environment)
    assert access.users(environment)[0] == f"admin:{environment['FLOWER_PASSWORD']}"


def test_several_may_have_a_password() -> None:
    assert access.users(BASIC | {"FLOWER_MORE_USERS": "ann:one,bob:two"}) == ["admin:secret", "ann:one", "bob:two"]
    assert access.users({}) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLOWER_USER", ""),
        ("FLOWER_USER", "ad:min"),
        ("FLOWER_PASSWORD", ""),
        ("FLOWER_PASSWORD", "pa,ss"),
        ("FLOWER_PASSWORD", "pässword"),
        ("FLOWER_MORE_USERS", "ann"),
        ("FLOWER_MORE_USERS", "ann:one,"),
        ("FLOWER_MORE_USERS", ":one"),
    ],
)
def test_a_password_that_opens_to_all_or_to_none_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SystemExit, match=rf"^{variable} is refused: it has to be ") as refused:
        access.check(BASIC | {variable: value})
    assert "\n" not in str(refused.value)
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("auth", ["ann@example.com", "ann@example.com|bob@example.com", ".*@example.com", "Ann@x.com"])
def test_usable_patterns_are_taken(auth: str) -> None:
    access.check(OAUTH | {"FLOWER_AUTH": auth})


@pytest.mark.parametrize(
    "auth", ["", ".*", "ann@.*", ".*@a.com|b@a.com", "[ab]@a.com", "(a|b)@a.com", "^ann@a.com$", "ann", "@a.com"]
)
def test_a_pattern_that_admits_nobody_or_everybody_is_refused(auth: str) -> None:
    with pytest.raises(SystemExit, match="FLOWER_AUTH"):
        access.check(OAUTH | {"FLOWER_AUTH": auth})


@pytest.mark.parametrize("variable", sorted(OAUTH))
def test_a_provider_without_its_values_is_refused(variable: str) -> None:
    with pytest.raises(SystemExit, match=f"^{variable} "):
        access.check(OAUTH | {variable: ""})


def test_what_a_provider_asks_for_besides() -> None:
    github = OAUTH | {"FLOWER_GITHUB_OAUTH_DOMAIN": "github.com"}
    access.check(github)
    for environment in (
        github | {"FLOWER_AUTH": "Ann@example.com"},
        github | {"FLOWER_GITHUB_OAUTH_DOMAIN": "https://github.com"},
        OAUTH | {"FLOWER_GITLAB_OAUTH_DOMAIN": ""},
        OAUTH | {"FLOWER_OAUTH2_OKTA_BASE_URL": "example.okta.com"},
    ):
        with pytest.raises(SystemExit, match="is refused"):
            access.check(environment)


@pytest.mark.parametrize(
    ("prefix", "usable"), [("", True), ("flower", True), ("a/b", True), ("/flower", False), ("a b", False)]
)
def test_a_path_has_no_slash_at_its_ends(prefix: str, *, usable: bool) -> None:
    with contextlib.nullcontext() if usable else pytest.raises(SystemExit, match="FLOWER_URL_PREFIX"):
        access.check({"FLOWER_URL_PREFIX": prefix})


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    access.check({"FLOWER_DB": str(tmp_path / "flower")})
    with pytest.raises(SystemExit, match=r"^FLOWER_DB is refused: .* unlike /nowhere/flower$"):
        access.check({"FLOWER_DB": "/nowhere/flower"})


def test_every_refusal_is_told_at_once() -> None:
    with pytest.raises(SystemExit) as refused:
        access.check(OAUTH | {"FLOWER_OAUTH2_KEY": "", "FLOWER_OAUTH2_SECRET": ""})
    named = [line.split()[0] for line in str(refused.value).splitlines()]
    assert named == ["FLOWER_OAUTH2_KEY", "FLOWER_OAUTH2_SECRET"]
