"""Validation of Flower's authentication variables, before Flower starts.

Flower silently accepts values that lock every user out or let anyone in.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse


class Rule(NamedTuple):
    """The format of a variable, checked if docker-compose.yml passes the variable."""

    variable: str
    is_valid: Callable[[str], object]
    fix: str
    requires: str = ""
    """Another variable that has to be present for the rule to apply."""


def _is_password(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and "," not in text


def _is_user(text: str) -> bool:
    return _is_password(text) and ":" not in text


def _is_user_list(text: str) -> bool:
    pairs = [entry.partition(":") for entry in text.split(",")] if text else []
    return all(_is_user(user) and _is_password(password) for user, _, password in pairs)


def _is_url(text: str) -> bool:
    parts = urlparse(text)
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def _is_writable(path: str) -> bool:
    return os.access(Path(path).parent, os.W_OK)


_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_EMAIL = rf"[A-Za-z0-9._%+'-]+@{_DOMAIN}"
_EMAILS = re.compile(rf"{_EMAIL}(\|{_EMAIL})*|\.\*@{_DOMAIN}")
_HOST = re.compile(r"[\w.-]+(:\d+)?")
_PATH = re.compile(r"([\w.-]+(/[\w.-]+)*)?")
_SECRET = re.compile(r"\S{32,}")

_CONFIDENTIAL = {"FLOWER_PASSWORD", "FLOWER_MORE_USERS", "FLOWER_OAUTH2_SECRET", "FLOWER_COOKIE_SECRET"}
"""Variables with secret values, which error messages omit."""

RULES = [
    Rule("FLOWER_USER", _is_user, "one or more printable ASCII characters, without comma or colon"),
    Rule("FLOWER_PASSWORD", _is_password, "one or more printable ASCII characters, without comma"),
    Rule("FLOWER_MORE_USERS", _is_user_list, "name:password pairs in ASCII, separated by commas, or nothing"),
    Rule("FLOWER_AUTH", _EMAILS.fullmatch, "one email address, several separated by |, or .*@example.com for a domain"),
    Rule("FLOWER_AUTH", str.islower, "lowercase letters, as Flower does for GitHub", "FLOWER_GITHUB_OAUTH_DOMAIN"),
    Rule("FLOWER_OAUTH2_KEY", str.strip, "the client ID issued by the provider"),
    Rule("FLOWER_OAUTH2_SECRET", str.strip, "the client secret issued by the provider"),
    Rule("FLOWER_OAUTH2_REDIRECT_URI", _is_url, "Flower's URL followed by /login, as registered at the provider"),
    Rule("FLOWER_COOKIE_SECRET", _SECRET.fullmatch, "at least 32 random characters"),
    Rule("FLOWER_GITHUB_OAUTH_DOMAIN", _HOST.fullmatch, "a host name such as github.com"),
    Rule("FLOWER_GITLAB_OAUTH_DOMAIN", _HOST.fullmatch, "a host name such as gitlab.com"),
    Rule("FLOWER_OAUTH2_OKTA_BASE_URL", _is_url, "a URL such as https://example.okta.com/oauth2"),
    Rule("FLOWER_URL_PREFIX", _PATH.fullmatch, "a path without leading or trailing slash such as flower, or nothing"),
    Rule("FLOWER_DB", _is_writable, f"a file in a folder that user {os.getuid()} may write to"),
]


def check(environment: Mapping[str, str]) -> None:
    """Reject values that lock every user out or let anyone in.

    Raises:
        SystemExit: with one line for each violated rule.
    """
    applicable = [rule for rule in RULES if {rule.variable, rule.requires or rule.variable} <= set(environment)]
    violated = [rule for rule in applicable if not rule.is_valid(environment[rule.variable])]
    if violated:
        raise SystemExit("\n".join(_message(rule, environment[rule.variable]) for rule in violated))


def _message(rule: Rule, value: str) -> str:
    shown = "value" if rule.variable in _CONFIDENTIAL else f'"{value}"'
    return f"{rule.variable}: {shown} is invalid (use {rule.fix})"


def users(environment: Mapping[str, str]) -> list[str]:
    """Return `name:password` for each basic-auth user; empty with OAuth or without authentication."""
    if "FLOWER_USER" not in environment:
        return []
    more = environment["FLOWER_MORE_USERS"]
    return [f"{environment['FLOWER_USER']}:{environment['FLOWER_PASSWORD']}", *(more.split(",") if more else [])]
