"""Protection against cross-site request forgery and DNS rebinding, for the API and Flower."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from app.core.settings import settings

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

OWN_HOSTS = {"localhost", "127.0.0.1", "[::1]", "backend", "flower"}
"""Hosts that are always allowed: this machine, and the names of the services for other containers.

Only the owner of a DNS search domain of the victim's network could rebind the name of a service.
"""

_HOST = re.compile(r"(\[[\da-f:.]+\]|[\w.-]+?)\.?(?::(?:80|443|(\d+)))?")
"""Name and port of a Host header; no port for 80 and 443, since a proxy may have ended TLS."""


def rejection(method: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, str] | None:
    """Return the status and the error of a request that is rejected, otherwise None.

    Browsers set Host, Origin and Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/) themselves; other clients need
    no more than Host. With a rebound name, Origin equals Host, hence the list of allowed hosts.
    """
    host = _parse(headers.get("Host", ""))
    if not host or (
        host[0] not in OWN_HOSTS and host[0] not in settings().allowed_hosts.lower().replace(",", " ").split()
    ):
        return HTTPStatus.BAD_REQUEST, "host not allowed (add it to ALLOWED_HOSTS)"
    if method in SAFE_METHODS:
        return None
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
    is_same = site in {"same-origin", "none"} and (origin is None or _parse(origin.partition("://")[2]) == host)
    return None if is_same else (HTTPStatus.FORBIDDEN, "cross-origin request rejected")


def _parse(host: str) -> tuple[str | None, ...] | None:
    found = _HOST.fullmatch(host.lower())
    return found.groups() if found else None
