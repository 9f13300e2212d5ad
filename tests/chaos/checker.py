"""The checker: samples the history while faults are executed, and checks every invariant at the end."""

import contextlib
import json
import os
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
import psycopg
from psycopg.rows import dict_row

from tests.chaos.executor import APPLICATION_NAME, Executor
from tests.chaos.load import Load
from tests.stack.conftest import ENDED, Stack, wait_until
from tests.stack.faults.ledger import Effect, Ledger, overlapping

Row = dict[str, Any]

INTERVAL = 0.5
"""Seconds between samples of the unfinished and recently ended runs."""

LONGEST_GAP = 180.0
"""Seconds without a sample, more than any fault of the database lasts."""

REPORTED = 5
"""Violations of each invariant that are reported with their rows."""

HANGING = 20.0
"""Seconds after which a hanging sample is aborted."""

EFFECTS_EVERY, HISTORY_EVERY = 10, 40
"""Samples between two checks of the effects, and of the complete history."""

LOST_AFTER = 30.0
"""Seconds by which the queue must be ahead of a lost message before it is sent again. They double per publication."""

SLACK = 60.0
"""Additional seconds that the relay may take."""

LOSSES_ALLOWED = 5
"""Worker losses after which a run is repeated. One fault can cause several."""

PUBLISH_LIMIT = 8
"""Publications after which a run ends as a failure."""

NEW = timedelta(seconds=10)
"""Maximum age of an attempt that may be revoked."""

EMPTY_FOR = 30.0
"""Seconds of an empty queue after which the relay has noticed it: it looks every 10 s; statistics are up to 5 s old."""

DRAIN = 300.0
"""Seconds within which every run must end, after the last fault and after the last wait for a lost message."""

LONGEST_DRAIN = DRAIN + LOST_AFTER * 2 ** (PUBLISH_LIMIT - 1)
"""Seconds after the last fault, with the longest wait for a lost message."""

UNCHANGED = ("state", "result", "error", "attempts", "retries", "ended_at")
"""Columns that do not change after the end of a run."""

GROWING = ("attempts", "retries", "publish_count")


@dataclass(frozen=True)
class Violation:
    """A violated invariant of a run or of another subject."""

    invariant: str
    subject: str
    detail: str = ""


class Checker:
    """Samples in the background, until the first violation.

    Args:
        stalled: seconds after which an attempt must have ended or been replaced, under any fault.
    """

    def __init__(self, stack: Stack, ledger: Ledger, stalled: float) -> None:
        self.violations: dict[tuple[str, str], Violation] = {}
        self.found = threading.Event()
        self.executor: Executor | None = None
        self._stack = stack
        self._ledger = ledger
        self._stalled = timedelta(seconds=stalled)
        self._rows: dict[str, Row] = {}
        self._unfinished: dict[str, Row] = {}
        self._effects: list[Effect] = []
        self._overtaken: dict[str, float] = {}
        self._away: tuple[object, datetime] | None = None
        self._sampled_at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_over, daemon=True)

    def unfinished(self) -> int:
        """Return the number of unfinished runs in the last sample."""
        return len(self._unfinished)

    def running(self) -> list[str]:
        """Return the runs in a new attempt in the last sample. Revoking an old one could hide that it is stalled."""
        rows = [row for row in self._unfinished.values() if row["state"] == "STARTED"]
        return sorted(row["id"] for row in rows if row["seen_at"] - row["started_at"] < NEW)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join(timeout=120)

    def report(self) -> list[str]:
        """Return a line for each of the first violations of an invariant, with the row and the effects of the run."""
        lines = []
        found = Counter[str]()
        for violation in self.violations.values():
            found[violation.invariant] += 1
            if found[violation.invariant] > REPORTED:
                continue
            row = self._rows.get(violation.subject)
            effects = [effect for effect in self._effects if effect.run_id == violation.subject]
            log = "; ".join(f"{each.seq} {each.at:.3f} {each.step} #{each.attempt} {each.owner}" for each in effects)
            shown = f" row={json.dumps(row, default=str)}" if row else ""
            lines.append(f"VIOLATION {violation.invariant}: {violation.subject} {violation.detail}{shown} sink=[{log}]")
        more = {invariant: count - REPORTED for invariant, count in found.items() if count > REPORTED}
        return lines + [f"VIOLATION {invariant}: {count} more" for invariant, count in more.items()]

    def violate(self, invariant: str, subject: str, detail: str = "") -> None:
        """Record a violation."""
        self.violations.setdefault((invariant, subject), Violation(invariant, subject, detail))
        self.found.set()

    # ---- while faults are executed -------------------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[Row]:
        options = {
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": APPLICATION_NAME,
        }
        return psycopg.connect(**{**self._ledger.address, **options}, row_factory=dict_row)

    def _sample_until_over(self) -> None:
        while not self._over.is_set():
            try:
                with self._connect() as connection:
                    number = 0
                    while not self._over.wait(INTERVAL):
                        with broken_after(HANGING, connection):
                            self._sample(connection, complete=number % HISTORY_EVERY == 0)
                            if number % EFFECTS_EVERY == 0:
                                self._check_effects(connection)
                        number += 1
            except (psycopg.OperationalError, psycopg.InterfaceError):
                if time.monotonic() - self._sampled_at > LONGEST_GAP:
                    self.violate("the checker works", "samples", f"none for {LONGEST_GAP:.0f} s")
                self._over.wait(1)
            except Exception as error:
                traceback.print_exc()
                self.violate("the checker works", type(error).__name__, str(error))
                return

    def _sample(self, connection: psycopg.Connection[Row], *, complete: bool) -> None:
        recent = "state NOT IN ('SUCCESS', 'FAILURE', 'REVOKED') OR ended_at > now() - interval '20 s'"
        condition = "true" if complete else recent
        away = self.executor.broker_away if self.executor else None
        statement = f"SELECT *, statement_timestamp() AS seen_at FROM task_runs WHERE {condition}"
        rows = connection.execute(statement).fetchall()
        self._sampled_at = time.monotonic()
        still_away = away is not None and self.executor is not None and self.executor.broker_away is away
        self._unfinished = {row["id"]: row for row in rows if row["state"] not in ENDED}
        for row in rows:
            if before := self._rows.get(row["id"]):
                self._compare(before, row)
            self._rows[row["id"]] = row
        self._check_stalled()
        self._check_overtaken()
        if still_away and rows:
            self._check_unconfirmed(away, rows)

    def _compare(self, before: Row, after: Row) -> None:
        if before["state"] in ENDED:
            if changed := {name: before[name] for name in UNCHANGED if before[name] != after[name]}:
                self.violate("an ended run never changes", after["id"], f"before: {changed}")
            return
        for name in GROWING:
            if after[name] < before[name]:
                self.violate(f"{name} never decrease", after["id"], f"before: {before[name]}")

    def _check_stalled(self) -> None:
        for run_id, row in self._unfinished.items():
            if row["state"] == "STARTED" and row["seen_at"] - row["started_at"] > self._stalled:
                self.violate("an interrupted attempt is repeated", run_id)

    def _check_overtaken(self) -> None:
        """Check that the relay requeues runs when their queue delivers much newer messages."""
        first_attempts = [
            row for row in self._unfinished.values() if row["state"] == "STARTED" and row["attempts"] == 1
        ]
        delivered = max((row["published_at"] for row in first_attempts if row["published_at"]), default=None)
        if delivered is None:
            return
        for run_id, row in self._unfinished.items():
            late = overdue(row, delivered)
            if late is None or late < SLACK:
                self._overtaken.pop(run_id, None)
            elif late > self._overtaken.setdefault(run_id, late) + 20:  # the relay has had time to detect it
                self.violate("a lost message is sent again", run_id, f"{late:.0f} s late")

    def _check_unconfirmed(self, away: object, rows: list[Row]) -> None:
        """Check that no message was recorded as published while the broker could not confirm any."""
        if self._away is None or self._away[0] is not away:
            self._away = (away, rows[0]["seen_at"])
        for row in rows:
            # revocations are not confirmed
            if row["state"] != "REVOKED" and row["published_at"] and row["published_at"] > self._away[1]:
                self.violate("a published message is confirmed", row["id"], f"the broker was unavailable: {away}")

    def _check_effects(self, connection: psycopg.Connection[Row]) -> None:
        statement = """
            SELECT run_id, state, count(*) AS number FROM session_effects LEFT JOIN task_runs ON id = run_id
            GROUP BY run_id, state HAVING count(*) > 1 OR state IS DISTINCT FROM 'SUCCESS'
        """
        for row in connection.execute(statement).fetchall():
            self.violate("writes of run.session commit with SUCCESS", row["run_id"], f"{row['number']} {row['state']}")
        with contextlib.suppress(httpx2.HTTPError):
            self._effects += self._ledger.effects_after(len(self._effects))
        done = Counter(effect.run_id for effect in self._effects if effect.step == "done")
        for run_id, number in done.items():
            if number > 1:
                self.violate("an effect happens once", run_id, f"{number} times")
        for run_id, attempt, owner in overlapping(self._effects):
            self.violate(
                "one attempt at a time", run_id, f"attempt {attempt} of {owner} wrote after its successor began"
            )

    # ---- at the end ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Wait until every run has ended. A message that was lost often is sent again after minutes."""
        began = last_message_at = last_waited_at = time.monotonic()
        while time.monotonic() < min(last_waited_at + DRAIN, began + LONGEST_DRAIN) and not self.found.wait(2):
            with contextlib.suppress(psycopg.OperationalError), self._connect() as connection:
                left = connection.execute(
                    "SELECT *, statement_timestamp() AS seen_at FROM task_runs "
                    "WHERE state NOT IN ('SUCCESS', 'FAILURE', 'REVOKED')"
                ).fetchall()
                if not left:
                    return
                late = {row["id"]: seconds for row in left if (seconds := overdue(row, row["seen_at"])) is not None}
                if min(late.values(), default=0) < 0:
                    last_waited_at = time.monotonic()
                if self._messages() != 0:
                    last_message_at = time.monotonic()
                elif time.monotonic() - last_message_at > EMPTY_FOR:
                    for run_id, seconds in late.items():
                        if seconds > SLACK:
                            self.violate("a lost message is sent again", run_id, f"{seconds:.0f} s late")

    def _messages(self) -> int | None:
        """Return the number of messages in the queues of tasks, or none if the broker does not respond."""
        try:
            queues = self._stack.broker.get("/queues/%2F").raise_for_status().json()
        except httpx2.HTTPError:
            return None
        return sum(int(queue.get("messages", 0)) for queue in queues if is_of_tasks(queue["name"]))

    def check(self, load: Load, executor: Executor) -> None:
        """Check every invariant of the history, the effects and the messages after the drain."""
        with self._connect() as connection:
            rows = connection.execute("SELECT * FROM task_runs").fetchall()
            self._check_effects(connection)
            written = connection.execute("SELECT run_id, count(*) AS number FROM session_effects GROUP BY run_id")
            in_session = {row["run_id"]: row["number"] for row in written}
        self._rows = {row["id"]: row for row in rows}
        done = Counter(effect.run_id for effect in self._effects if effect.step == "done")
        for run_id in load.accepted.keys() - self._rows.keys():
            self.violate("an accepted run has a row", run_id, str(load.accepted[run_id]))
        for run_id, row in self._rows.items():
            if row["state"] not in ENDED:
                self.violate("every run ends", run_id)
                continue
            self._check_end(row, load)
            succeeded = row["state"] == "SUCCESS"
            if row["name"] == "record" and in_session.get(run_id, 0) != int(succeeded):
                self.violate("writes of run.session commit with SUCCESS", run_id, f"{in_session.get(run_id, 0)} rows")
            if row["name"] == "effect" and succeeded and done[run_id] != 1:
                self.violate("an effect happens once", run_id, f"{done[run_id]} times")
            if row["attempts"] - row["retries"] > 1 + LOSSES_ALLOWED + len(executor.executed):
                self.violate("attempts have a cause", run_id)
            if row["publish_count"] - row["retries"] > 1 + PUBLISH_LIMIT:
                self.violate("publications are bounded", run_id)
        self._check_messages(executor)

    def _check_end(self, row: Row, load: Load) -> None:
        run_id, state = row["id"], row["state"]
        if row["ended_at"] is None:
            self.violate("an ended run has an end time", run_id)
        gave_up = (row["error"] or "").startswith("gave up") and row["losses"] > LOSSES_ALLOWED
        if state == "FAILURE" and row["name"] != "fail" and not gave_up:
            self.violate("a valid task does not fail", run_id)
        if state == "SUCCESS" and row["name"] == "fail":
            self.violate("a failing task does not succeed", run_id)
        if state == "REVOKED" and run_id not in load.revoked:
            self.violate("a run is revoked only by request", run_id)
        if state == "SUCCESS" and row["name"] == "add":
            arguments = row["arguments"]
            if row["result"] != arguments["x"] + arguments["y"]:
                self.violate("the result is that of the task", run_id)

    def _check_messages(self, executor: Executor) -> None:
        try:
            wait_until(lambda: self._messages() == 0, 30, "the queues to be empty")
        except AssertionError:
            self.violate("queues are empty at the end", "queues", f"{self._messages()} messages")
        body = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
        dead = self._stack.broker.post("/queues/%2F/dead-letters/get", json=body).raise_for_status().json()
        # A message that waits for PostgreSQL is requeued repeatedly, up to the delivery limit.
        is_explained = any(fault.service == "db" for fault in executor.executed)
        for message in dead:
            headers = message["properties"].get("headers", {})
            reasons = {death.get("reason") for death in headers.get("x-death", [])}
            if not is_explained or reasons != {"delivery_limit"}:
                self.violate("a dead letter has a cause", str(headers.get("id")), f"{headers.get('task')} {reasons}")


@contextlib.contextmanager
def broken_after(seconds: float, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Break a hanging connection: Docker's proxy of a published port keeps it when the container has no network."""
    with socket.socket(fileno=os.dup(connection.fileno())) as twin:
        timer = threading.Timer(seconds, twin.shutdown, (socket.SHUT_RDWR,))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def is_of_tasks(queue: str) -> bool:
    """Return whether a queue has messages of tasks."""
    return queue == "celery" or queue.startswith("celery_delayed_")


def overdue(row: Row, delivered: datetime) -> float | None:
    """Return the seconds since the relay should have requeued a waiting run, or none if the run has no message."""
    if row["state"] not in {"PENDING", "RETRY"} or row["outbox_action"] is not None:
        return None
    times = [row[name] for name in ("published_at", "started_at", "next_try_at") if row[name]]
    if not times:
        return None
    unanswered = min(max(row["publish_count"] - row["attempts"], 1), PUBLISH_LIMIT)
    waited: float = (delivered - max(times)).total_seconds() - LOST_AFTER * 2 ** (unanswered - 1)
    return waited
