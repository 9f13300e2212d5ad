"""Validation of Flower's variables, before Flower starts.

Flower silently accepts values that lock every user out or let anyone in.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_USER = "(?:(?![,:])[ -~])+"
_PASSWORD = "(?:(?!,)[ -~])+"  # noqa: S105 (a pattern)
_USERS = f"{_USER}:{_PASSWORD}(,{_USER}:{_PASSWORD})*"
_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_EMAIL = rf"[A-Za-z0-9._%+'-]+@{_DOMAIN}"
_EMAILS = rf"{_EMAIL}(\|{_EMAIL})*|\.\*@{_DOMAIN}"
_HOST = r"[\w.-]+(:\d+)?"
_PATH = r"[\w.-]+(/[\w.-]+)*"
_TEXT = r".*\S.*"
_URL = r"(?i:https?)://[^/?#].*"

RULES = {
    "FLOWER_USER": (_USER, "one or more printable ASCII characters, without comma or colon"),
    "FLOWER_PASSWORD": (_PASSWORD, "one or more printable ASCII characters, without comma"),
    "FLOWER_MORE_USERS": (f"({_USERS})?", "name:password pairs in ASCII, separated by commas, or nothing"),
    "FLOWER_AUTH": (_EMAILS, "one email address, several separated by |, or .*@example.com for a domain"),
    "FLOWER_OAUTH2_KEY": (_TEXT, "the client ID issued by the provider"),
    "FLOWER_OAUTH2_SECRET": (_TEXT, "the client secret issued by the provider"),
    "FLOWER_OAUTH2_REDIRECT_URI": (_URL, "Flower's URL followed by /login, as registered at the provider"),
    "FLOWER_COOKIE_SECRET": (r"\S{32,}", "at least 32 random characters"),
    "FLOWER_GITHUB_OAUTH_DOMAIN": (_HOST, "a host name such as github.com"),
    "FLOWER_GITLAB_OAUTH_DOMAIN": (_HOST, "a host name such as gitlab.com"),
    "FLOWER_OAUTH2_OKTA_BASE_URL": (_URL, "a URL such as https://example.okta.com/oauth2"),
    "FLOWER_URL_PREFIX": (f"({_PATH})?", "a path without leading or trailing slash such as flower, or nothing"),
}
"""Pattern and description of each variable that docker-compose.yml may pass."""

_SECRET = {"FLOWER_PASSWORD", "FLOWER_MORE_USERS", "FLOWER_OAUTH2_SECRET", "FLOWER_COOKIE_SECRET"}  # never printed


def check(environment: Mapping[str, str]) -> None:
    """Exit with one line for each value that would lock every user out or let anyone in."""
    given = {name: environment[name] for name in RULES if name in environment}
    fixes = {name: RULES[name][1] for name, value in given.items() if not re.fullmatch(RULES[name][0], value)}
    if "FLOWER_GITHUB_OAUTH_DOMAIN" in given and re.search("[A-Z]", given.get("FLOWER_AUTH", "")):
        fixes.setdefault("FLOWER_AUTH", "lowercase letters, as Flower does for GitHub")
    if "FLOWER_DB" in environment and not os.access(Path(environment["FLOWER_DB"]).parent, os.W_OK):
        fixes["FLOWER_DB"] = f"a file in a folder that user {os.getuid()} may write to"
    if fixes:
        shown = {name: "value" if name in _SECRET else f'"{environment[name]}"' for name in fixes}
        raise SystemExit("\n".join(f"{name}: {shown[name]} is invalid (use {fix})" for name, fix in fixes.items()))


def users(environment: Mapping[str, str]) -> list[str]:
    """Return `name:password` for each basic-auth user; empty with OAuth or without authentication."""
    if "FLOWER_USER" not in environment:
        return []
    more = environment["FLOWER_MORE_USERS"]
    return [f"{environment['FLOWER_USER']}:{environment['FLOWER_PASSWORD']}", *(more.split(",") if more else [])]
