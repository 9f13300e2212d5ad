"""Who may open Flower, and what it needs for that: the variables, checked before Flower starts.

Flower itself takes values that lock everybody out, or let everybody in, without a word.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse


class Rule(NamedTuple):
    """What a variable has to be, where docker-compose.yml passes it; `text` says it to a person."""

    variable: str
    holds: Callable[[str], object]
    text: str
    passed_with: str = ""


def _is_password(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and "," not in text


def _is_user(text: str) -> bool:
    return _is_password(text) and ":" not in text


def _are_users(text: str) -> bool:
    pairs = [entry.partition(":") for entry in text.split(",")] if text else []
    return all(_is_user(user) and _is_password(password) for user, _, password in pairs)


def _is_address(text: str) -> bool:
    parts = urlparse(text)
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def _can_be_written(path: str) -> bool:
    return os.access(Path(path).parent, os.W_OK)


_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_PERSON = rf"[A-Za-z0-9._%+'-]+@{_DOMAIN}"
_PEOPLE = re.compile(rf"{_PERSON}(\|{_PERSON})*|\.\*@{_DOMAIN}")
_HOST = re.compile(r"[\w.-]+(:\d+)?")
_PATH = re.compile(r"([\w.-]+(/[\w.-]+)*)?")
_SECRET = re.compile(r"\S{32,}")

RULES = [
    Rule("FLOWER_USER", _is_user, "at least one character, all of them ASCII, none a comma or a colon"),
    Rule("FLOWER_PASSWORD", _is_password, "at least one character, all of them ASCII, none a comma"),
    Rule("FLOWER_MORE_USERS", _are_users, "empty, or name:password of each, joined by commas, in ASCII"),
    Rule("FLOWER_AUTH", _PEOPLE.fullmatch, "one address, several joined by |, or .*@example.com for all of a domain"),
    Rule("FLOWER_AUTH", str.islower, "in lower case, as GitHub's addresses are compared", "FLOWER_GITHUB_OAUTH_DOMAIN"),
    Rule("FLOWER_OAUTH2_KEY", str.strip, "the client id that the provider has given you"),
    Rule("FLOWER_OAUTH2_SECRET", str.strip, "the client secret that the provider has given you"),
    Rule("FLOWER_OAUTH2_REDIRECT_URI", _is_address, "Flower's own address with /login, as the provider knows it"),
    Rule("FLOWER_COOKIE_SECRET", _SECRET.fullmatch, "at least 32 random characters"),
    Rule("FLOWER_GITHUB_OAUTH_DOMAIN", _HOST.fullmatch, "the name of a host, such as github.com"),
    Rule("FLOWER_GITLAB_OAUTH_DOMAIN", _HOST.fullmatch, "the name of a host, such as gitlab.com"),
    Rule("FLOWER_OAUTH2_OKTA_BASE_URL", _is_address, "an address, such as https://example.okta.com/oauth2"),
    Rule("FLOWER_URL_PREFIX", _PATH.fullmatch, "empty, or a path without a slash at its ends, such as flower"),
    Rule("FLOWER_DB", _can_be_written, f"a file in a folder that user {os.getuid()} may write to, unlike {{value}}"),
]


def check(environment: Mapping[str, str]) -> None:
    """Refuse what nobody could log in with, or everybody.

    Raises:
        SystemExit: with a line for each variable that breaks its rule.
    """
    asked = [rule for rule in RULES if {rule.variable, rule.passed_with or rule.variable} <= set(environment)]
    broken = [rule for rule in asked if not rule.holds(environment[rule.variable])]
    if broken:
        lines = [
            f"{rule.variable} is refused: it has to be {rule.text.format(value=environment[rule.variable])}"
            for rule in broken
        ]
        raise SystemExit("\n".join(lines))


def users(environment: Mapping[str, str]) -> list[str]:
    """`name:password` of each who may log in with a password; empty where there is another way, or none."""
    if "FLOWER_USER" not in environment:
        return []
    more = environment["FLOWER_MORE_USERS"]
    return [f"{environment['FLOWER_USER']}:{environment['FLOWER_PASSWORD']}", *(more.split(",") if more else [])]
