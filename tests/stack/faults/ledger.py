"""Ledger: counts the outcomes and effects of accepted runs."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg

from tests.stack.conftest import Stack, wait_until

SINK = "http://localhost:8070"


@dataclass(frozen=True)
class Account:
    """Outcomes of the accepted runs.

    `lost` counts runs that did not end; `overlaps` counts attempts that wrote an effect after another attempt at the
    same run had begun; `started_again` counts attempts beyond the first, which a crash permits; `sent_again` counts
    messages that the relay sent because it considered the first one lost.
    """

    accepted: int
    done: int
    lost: int
    duplicate_effects: int
    overlaps: int
    started_again: int
    sent_again: int


@dataclass
class Load:
    """Requests that are sent during a fault."""

    ids: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """Failed requests by status code or exception."""
    seconds: list[float] = field(default_factory=list)
    """Duration of each accepted request."""

    def send(self, http: httpx2.Client, task: str, **arguments: Any) -> None:
        """Send one request, and count any response other than 202 as an error."""
        began = time.monotonic()
        try:
            response = http.post(f"/tasks/{task}", params=arguments)
        except httpx2.HTTPError as error:
            self.errors[type(error).__name__] += 1
            return
        if response.status_code == 202:
            self.ids.append(response.json()["task_id"])
            self.seconds.append(time.monotonic() - began)
        else:
            self.errors[str(response.status_code)] += 1


@dataclass(frozen=True)
class Effect:
    """A step of an attempt in the sink: `begun`, then `done`, or `over` if an earlier attempt was done."""

    seq: int
    at: float
    run_id: str
    step: str
    attempt: int
    owner: str


def overlapping(effects: Iterable[Effect]) -> set[tuple[str, int, str]]:
    """Return the attempts (run, number, owner) that wrote something after another attempt at their run had begun."""
    newest: dict[str, tuple[str, int, str]] = {}
    found = set()
    for effect in sorted(effects, key=lambda effect: effect.seq):
        attempt = (effect.run_id, effect.attempt, effect.owner)
        if effect.step == "begun":
            newest[effect.run_id] = attempt
        elif newest.get(effect.run_id) != attempt:
            found.add(attempt)
    return found


class Ledger:
    """Reads the database and the sink of effects without the application."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        env = stack.project.env
        self.address: dict[str, Any] = {
            "host": "localhost",
            "port": 5432,
            "user": "postgres",  # the application's role may neither ALTER SYSTEM nor end all sessions
            "password": env["POSTGRES_ADMIN_PASSWORD"],
            "dbname": env["POSTGRES_DB"],
            "autocommit": True,
        }
        self.execute("CREATE TABLE IF NOT EXISTS session_effects (run_id text)")
        self.execute("GRANT ALL ON session_effects TO PUBLIC")

    def session(self) -> psycopg.Connection[Any]:
        """Open a session, which a `with` block closes."""
        return psycopg.connect(**self.address)

    def execute(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in a new session; return its rows."""
        with self.session() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def unfinished(self, ids: list[str]) -> int:
        """Return the number of these runs that have not ended."""
        statement = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND ended_at IS NOT NULL"
        return len(ids) - int(self.execute(statement, ids=ids)[0][0])

    def account(self, ids: list[str], timeout: float = 120) -> Account:
        """Wait up to `timeout` seconds for the end of these runs of `effect`; return their account."""
        assert len(ids) == len(set(ids))
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.unfinished(ids) == 0, timeout, "every run to end")
        succeeded = "SELECT id FROM task_runs WHERE id = ANY(%(ids)s) AND state = 'SUCCESS'"
        sent_again = (
            "SELECT coalesce(sum(greatest(publish_count - retries - 1, 0)), 0) FROM task_runs WHERE id = ANY(%(ids)s)"
        )
        effects = self.effects(ids)
        done = {effect.run_id for effect in effects if effect.step == "done"}
        return Account(
            accepted=len(ids),
            done=len(done & {task_id for (task_id,) in self.execute(succeeded, ids=ids)}),
            lost=self.unfinished(ids),
            duplicate_effects=self.repeated("done", ids),
            overlaps=len(overlapping(effects)),
            started_again=self.repeated("begun", ids),
            sent_again=self.execute(sent_again, ids=ids)[0][0],
        )

    def unsuccessful(self, ids: list[str]) -> list[Any]:
        """Return up to 5 rows of these runs that did not end as SUCCESS."""
        statement = "SELECT row_to_json(r) FROM task_runs r WHERE id = ANY(%(ids)s) AND state <> 'SUCCESS' LIMIT 5"
        return [row for (row,) in self.execute(statement, ids=ids)]

    def repeated(self, step: str, ids: list[str]) -> int:
        """Return how often the runs of `effect` repeated a step."""
        runs = [effect.run_id for effect in self.effects(ids) if effect.step == step]
        return len(runs) - len(set(runs))

    def attempts(self, task_id: str) -> int:
        """Return the number of attempts at a run of `effect`."""
        return sum(effect.step == "begun" for effect in self.effects([task_id]))

    def effects(self, ids: list[str]) -> list[Effect]:
        """Return the steps of these runs of `effect`, in the order of the sink."""
        response = httpx2.post(f"{SINK}/query", json={"ids": ids}, timeout=10).raise_for_status()
        return [Effect(**record) for record in response.json()]

    def effects_after(self, seq: int) -> list[Effect]:
        """Return the steps of all runs after a sequence number."""
        response = httpx2.get(f"{SINK}/effects", params={"after": seq}, timeout=10).raise_for_status()
        return [Effect(**record) for record in response.json()]


def celery_states(stack: Stack, ids: list[str]) -> set[str]:
    """Return the states of these runs in Celery's result backend."""
    read = f"from app.celery_app import celery_app as c; print(*{{c.AsyncResult(i).state for i in {ids!r}}})"
    return set(stack.compose("exec", "-T", "backend", "python", "-c", read).split())


@contextlib.contextmanager
def under_load(
    task: str = "effect", *, each_second: float = 40, seconds: float = 90, **arguments: Any
) -> Iterator[Load]:
    """Send requests at a constant rate during a block, for at most `seconds`."""
    load = Load()
    over = threading.Event()

    def send(http: httpx2.Client) -> None:
        deadline = time.monotonic() + seconds
        while not over.wait(4 / each_second) and time.monotonic() < deadline:
            load.send(http, task, **arguments)

    with httpx2.Client(base_url="http://localhost:8060", timeout=30) as http:
        senders = [threading.Thread(target=send, args=(http,)) for _ in range(4)]
        for sender in senders:
            sender.start()
        try:
            wait_until(lambda: len(load.ids) >= each_second / 2, 30, "the load to start")
            yield load
        finally:
            over.set()
            for sender in senders:
                sender.join(timeout=60)
