"""The ledger: what became of every accepted request."""

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
    """What became of the accepted runs.

    `lost` are those that did not end; `overlaps` counts the attempts that wrote an effect after another attempt at the
    same run had begun; `started_again` counts the attempts beyond the first, which a crash excuses; `sent_again` counts
    the messages that the relay sent because it took the first for lost.
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
    """Requests that are sent while something breaks."""

    ids: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """How long each accepted request took."""

    def send(self, http: httpx2.Client, task: str, **arguments: Any) -> None:
        """Send one request; an answer other than 202 is counted as refused, under its status or its error."""
        began = time.monotonic()
        try:
            answer = http.post(f"/tasks/{task}", params=arguments)
        except httpx2.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return
        if answer.status_code == 202:
            self.ids.append(answer.json()["task_id"])
            self.seconds.append(time.monotonic() - began)
        else:
            self.refused[str(answer.status_code)] += 1


@dataclass(frozen=True)
class Effect:
    """A step of an attempt, as the sink has recorded it: `begun`, then `done`, or `over` if it was done before."""

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
    """The database and the sink of effects, read from outside of the application."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        env = stack.project.env
        self.address: dict[str, Any] = {
            "host": "localhost",
            "port": 5432,
            "user": "postgres",  # ALTER SYSTEM, and ending any session, are not for the application's role
            "password": env["POSTGRES_ADMIN_PASSWORD"],
            "dbname": env["POSTGRES_DB"],
            "autocommit": True,
        }
        self.execute("CREATE TABLE IF NOT EXISTS session_effects (run_id text)")
        self.execute("GRANT ALL ON session_effects TO PUBLIC")

    def session(self) -> psycopg.Connection[Any]:
        """A session of its own, closed at the end of a `with` block."""
        return psycopg.connect(**self.address)

    def execute(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in a session of its own."""
        with self.session() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def unfinished(self, ids: list[str]) -> int:
        """How many of these runs have not ended."""
        statement = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND ended_at IS NOT NULL"
        return len(ids) - int(self.execute(statement, ids=ids)[0][0])

    def account(self, ids: list[str], timeout: float = 120) -> Account:
        """Wait for the end of these runs of `effect`, or until `timeout` seconds have passed, and draw the line."""
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

    def not_done(self, ids: list[str]) -> list[Any]:
        """Return up to 5 rows of these runs that did not end as SUCCESS."""
        statement = "SELECT row_to_json(r) FROM task_runs r WHERE id = ANY(%(ids)s) AND state <> 'SUCCESS' LIMIT 5"
        return [row for (row,) in self.execute(statement, ids=ids)]

    def repeated(self, step: str, ids: list[str]) -> int:
        """How often the runs of `effect` came to a step beyond the first time."""
        runs = [effect.run_id for effect in self.effects(ids) if effect.step == step]
        return len(runs) - len(set(runs))

    def begun(self, task_id: str) -> int:
        """How often a run of `effect` was begun."""
        return sum(effect.step == "begun" for effect in self.effects([task_id]))

    def effects(self, ids: list[str]) -> list[Effect]:
        """Return the steps of these runs of `effect`, in the order in which they reached the sink."""
        answer = httpx2.post(f"{SINK}/query", json={"ids": ids}, timeout=10).raise_for_status()
        return [Effect(**record) for record in answer.json()]

    def effects_after(self, seq: int) -> list[Effect]:
        """Return the steps of all runs after a sequence number."""
        answer = httpx2.get(f"{SINK}/effects", params={"after": seq}, timeout=10).raise_for_status()
        return [Effect(**record) for record in answer.json()]


@contextlib.contextmanager
def under_load(
    task: str = "effect", *, each_second: float = 40, seconds: float = 90, **arguments: Any
) -> Iterator[Load]:
    """Send requests at a steady pace as long as a block lasts, and at most for so many seconds."""
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
            wait_until(lambda: len(load.ids) >= each_second / 2, 30, "the load to begin")
            yield load
        finally:
            over.set()
            for sender in senders:
                sender.join(timeout=60)
