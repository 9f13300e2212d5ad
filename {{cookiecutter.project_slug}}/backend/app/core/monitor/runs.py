"""Pages of the complete history, of schedules and of queues, with the operations of the API.

Flower's own pages show a limited number of recent tasks from memory. These show the complete history. The API
provides it, so that Flower needs no access to it in PostgreSQL.
"""

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, override
from urllib.parse import quote, urlencode

from flower.views import BaseHandler
from tornado.httpclient import AsyncHTTPClient
from tornado.httpclient import HTTPError as ClientError
from tornado.web import HTTPError, authenticated, url

from app.core.settings import settings

TIMEOUT = 20.0  # seconds that the API has to answer
STATES = ("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED")
BADGES = {
    "SUCCESS": "text-bg-success",
    "FAILURE": "text-bg-danger",
    "STARTED": "task-state-started",
    "RETRY": "text-bg-warning",
}
OPERATIONS = {"retry": ("SUCCESS", "FAILURE"), "revoke": ("PENDING", "STARTED", "RETRY")}
"""The operations, and the states of the runs that they change."""
FILTERS = ("state", "name", "worker", "since", "until", "argument")


class Page(BaseHandler):
    """Base of the pages: calls the API, and shows its problems."""

    active_page = ""

    async def call(self, method: str, path: str, query: Any = (), body: Any = None) -> Any:
        """Return the answer of the API; raises `HTTPError` with its problem, or 502 if it is unavailable."""
        code, answer = await self._fetch(method, f"{settings().api_url}{path}?{urlencode(query)}", body)
        if code == HTTPStatus.UNAUTHORIZED:
            raise HTTPError(HTTPStatus.BAD_GATEWAY, "the API rejected the key of Flower (set FLOWER_API_KEY in .env)")
        if code >= HTTPStatus.BAD_REQUEST:
            raise HTTPError(code, "%s", answer["detail"])
        return answer

    @staticmethod
    async def _fetch(method: str, address: str, body: Any) -> tuple[int, Any]:
        sent = "" if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if sent else {}
        if key := settings().api_key.get_secret_value():
            headers["Authorization"] = f"Bearer {key}"
        request: Any = {"method": method, "body": sent if method == "POST" else None, "headers": headers}
        try:
            response = await AsyncHTTPClient().fetch(address, raise_error=False, request_timeout=TIMEOUT, **request)
            return response.code, json.loads(response.body)
        except (OSError, ClientError, ValueError) as error:
            raise HTTPError(HTTPStatus.BAD_GATEWAY, "the API is unavailable: %s", error) from error

    def filters(self) -> dict[str, str]:
        """Return the filters of the request that have a value."""
        given = {name: self.get_argument(name, "", escape=False).strip() for name in FILTERS}
        return {name: value for name, value in given.items() if value}

    def query(self) -> dict[str, str]:
        """Return the filters as parameters of the API: a time without zone is in UTC."""
        return {name: to_utc(text) if name in {"since", "until"} else text for name, text in self.filters().items()}

    def check_writable(self) -> None:
        """Raise `HTTPError` in read-only mode."""
        if self.application.options.read_only:
            raise HTTPError(HTTPStatus.FORBIDDEN, "Flower is in read-only mode")

    @override
    def render(self, template_name: str, **values: Any) -> Any:
        values |= {"read_only": self.application.options.read_only, "badges": BADGES, "active_page": self.active_page}
        return super().render(template_name, moment=moment, seconds=seconds, compact=compact, **values)

    @override
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if status_code == HTTPStatus.UNAUTHORIZED or not isinstance(error, HTTPError):
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):
            self.current_user = None  # the page must not authenticate again
        self.render("problem.html", problem=error.get_message() or HTTPStatus(status_code).phrase)


class Runs(Page):
    """`/runs`: the history, newest first."""

    active_page = "runs"

    @authenticated
    async def get(self) -> None:
        """Show the runs that match the filters."""
        filters, cursor = self.filters(), self.get_argument("cursor", "", escape=False)
        page = await self.call("GET", "/tasks/history", self.query() | ({"cursor": cursor} if cursor else {}))
        older = urlencode(filters | {"cursor": page["next_cursor"]}) if page["next_cursor"] else ""
        changed, remaining = (self.get_argument(name, "0", type=int) for name in ("changed", "remaining"))
        self.render(
            "runs.html",
            runs=page["tasks"],
            filters=filters,
            older=older,
            newest=urlencode(filters) if cursor else None,
            states=STATES,
            operations=[name for name, states in OPERATIONS.items() if filters.get("state") in states],
            changed=changed,
            remaining=remaining,
        )


class RunsOperation(Page):
    """`POST /runs/retry` and `POST /runs/revoke`: all runs that match the filters."""

    @authenticated
    async def post(self, operation: str) -> None:
        """Change the runs, and return to the list."""
        self.check_writable()
        if self.query().get("state") not in OPERATIONS[operation]:
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"state: choose one of {', '.join(OPERATIONS[operation])}")
        changed = await self.call("POST", f"/tasks/{operation}", self.query() | {"all": "true"})
        shown = urlencode(self.filters() | changed)
        self.redirect(f"{self.reverse_url('runs')}?{shown}", status=HTTPStatus.SEE_OTHER)


class Run(Page):
    """`/runs/ID`: one run with all attempts."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """Show the run."""
        run = await self.call("GET", f"/tasks/{quote(run_id, safe='')}")
        if "task_id" not in run:  # another call of the API, such as the history
            raise HTTPError(HTTPStatus.NOT_FOUND, "task not found: %s", run_id)
        operations = [name for name, states in OPERATIONS.items() if run["state"] in states]
        self.render("run.html", run=run, operations=operations)


class RunOperation(Page):
    """`POST /runs/ID/retry` and `POST /runs/ID/revoke`."""

    @authenticated
    async def post(self, run_id: str, operation: str) -> None:
        """Change the run, and return to it."""
        self.check_writable()
        path = f"/tasks/{quote(run_id, safe='')}"
        if operation == "retry":
            await self.call("POST", f"{path}/retry", body={"arguments": self._arguments()})
        else:
            await self.call("DELETE", path)
        self.redirect(self.reverse_url("run", run_id), status=HTTPStatus.SEE_OTHER)

    def _arguments(self) -> Any:
        text = self.get_argument("arguments", "", escape=False)
        try:
            return json.loads(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"arguments: not valid JSON: {error}") from None


class Schedules(Page):
    """`/schedules`: the periodic tasks."""

    active_page = "schedules"

    @authenticated
    async def get(self) -> None:
        """Show the schedules."""
        self.render("schedules.html", schedules=await self.call("GET", "/schedules"))


class Queues(Page):
    """`/queues`: the queues and their unfinished runs."""

    active_page = "queues"

    @authenticated
    async def get(self) -> None:
        """Show the queues."""
        self.render("queues.html", queues=await self.call("GET", "/queues"))


class Switch(Page):
    """`POST /schedules/NAME/pause` and the like."""

    @authenticated
    async def post(self, kind: str, name: str, action: str) -> None:
        """Pass the call to the API, and return to the list."""
        self.check_writable()
        await self.call("POST", f"/{kind}/{name}/{action}")
        self.redirect(self.reverse_url(kind), status=HTTPStatus.SEE_OTHER)


def to_utc(text: str) -> str:
    """Return a time without zone as one in UTC, for the API to validate."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def moment(text: str | None) -> str:
    """Return a time of the API as `2026-01-31 12:00:00`, in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}" if text else ""


def seconds(run: dict[str, Any]) -> float | None:
    """Return the seconds from the start to the end of an attempt that has ended."""
    if not (run["started_at"] and run["ended_at"]):
        return None
    started, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    return (ended - started).total_seconds()


def compact(value: Any, length: int = 100) -> str:
    """Return JSON in one line of at most `length` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 1]}…"


HANDLERS = [
    url("/runs", Runs, name="runs"),
    url("/runs/(retry|revoke)", RunsOperation),
    url("/runs/([^/]+)", Run, name="run"),
    url("/runs/([^/]+)/(retry|revoke)", RunOperation),
    url("/schedules", Schedules, name="schedules"),
    url("/queues", Queues, name="queues"),
    url(r"/(schedules)/([\w-]+)/(pause|resume|run)", Switch),
    url(r"/(queues)/([\w-]+)/(pause|resume)", Switch),
]
