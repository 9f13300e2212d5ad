"""Schedules: periodic runs, enqueued once per tick by whichever relay comes first.

    schedule(send_report, crontab("0 6 * * *", timezone="Europe/Berlin"))
    schedule(refresh, every(60), name="refresh-prices", arguments={"full": False})

A tick depends on the rule and on PostgreSQL's clock alone; processes do not read their own clocks. The transaction that
enqueues a tick moves `next_tick` with the row locked, and the id of the run follows from schedule and tick: a tick
exists once, whichever processes and versions run side by side.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import takewhile
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import structlog
from cronsim import CronSim, CronSimError
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Base, relay_engine
from app.core.errors import ConfigurationError
from app.core.tasks import history
from app.core.tasks.arguments import describe
from app.core.tasks.attempt import TICK_VERSION
from app.core.tasks.background import background
from app.core.tasks.base import RecordedTask

logger = structlog.get_logger(__name__)

POLL = 1.0  # seconds
CATCH_UP = 100  # newest missed ticks that are caught up within the grace; older ones are skipped
GRACES = range(60, 24 * 60 * 60 + 1)  # seconds
INTERVALS = range(1, 366 * 24 * 60 * 60 + 1)  # seconds
SEEN = timedelta(seconds=30)  # between two marks that a version with this rule is running
ABANDONED = timedelta(minutes=2)  # without a mark, after which another version's rule replaces the row's
OVERDUE = timedelta(minutes=1)  # lateness that readiness reports
UNKNOWN_ZONE = (ValueError, OSError, KeyError)
EPOCH = datetime.fromtimestamp(0, UTC)
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")

_time = sa.DateTime(timezone=True)

table = sa.Table(
    "schedules",
    Base.metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("rule", sa.Text, nullable=False, comment="of the version that started last"),
    sa.Column("next_tick", _time, nullable=False),
    sa.Column("last_tick", _time, comment="newest enqueued tick"),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("seen_at", _time, nullable=False, server_default=func.now(), comment="by a process with this rule"),
)


@dataclass(frozen=True)
class every:  # noqa: N801 (reads as a phrase)
    """A tick at each multiple of `seconds` since 1970-01-01 00:00 UTC."""

    seconds: int

    def __str__(self) -> str:
        return f"every {self.seconds} s"

    def check(self) -> None:
        """Raise `ValueError` if the interval is invalid."""
        if type(self.seconds) is not int or self.seconds not in INTERVALS:
            message = f"every({self.seconds!r}) is not a whole number of seconds from 1 to {INTERVALS[-1]}"
            raise ValueError(message)

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """Yield the ticks after a time, in UTC."""
        interval = timedelta(seconds=self.seconds)
        tick = EPOCH + (after - EPOCH) // interval * interval
        while True:
            tick += interval
            yield tick


@dataclass(frozen=True)
class crontab:  # noqa: N801 (reads as a phrase)
    """A tick at each minute that matches `expression`, five fields as in cron, in a time zone.

    Daylight-saving time is treated as in Debian's cron. If hour and minute are fixed, a tick in the skipped hour comes
    at its end, and one in the repeated hour comes once. With `*` in either field, ticks follow elapsed time.
    """

    expression: str
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    def check(self) -> None:
        """Raise `ValueError` if the expression or the time zone is invalid, or no date matches."""
        try:
            ZoneInfo(self.timezone)
        except UNKNOWN_ZONE:
            message = f"unknown time zone {self.timezone!r} (use a name such as Europe/Berlin)"
            raise ValueError(message) from None
        fields = 5
        try:
            valid = len(self.expression.split()) == fields and next(self.ticks(EPOCH), None)
        except CronSimError:
            valid = None
        if not valid:
            message = f"crontab {self.expression!r} is invalid or never matches (use minute hour day month weekday)"
            raise ValueError(message)

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """Yield the ticks after a time, in UTC."""
        for local in CronSim(self.expression, after.astimezone(ZoneInfo(self.timezone))):
            tick = local.astimezone(UTC)
            if tick > after:  # the second pass through a repeated hour finds ticks of the first
                yield tick
                after = tick


@dataclass(frozen=True)
class Schedule:
    """A registered schedule; `arguments` are JSON."""

    name: str
    task: RecordedTask[..., Any]
    rule: every | crontab
    arguments: Mapping[str, Any]
    grace: int


SCHEDULES: dict[str, Schedule] = {}  # by name


def schedule(
    task: RecordedTask[..., Any],
    rule: every | crontab,
    *,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    grace: int = 60 * 60,
) -> None:
    """Register a schedule, in a feature's `schedule.py`.

    Args:
        task: the task to run.
        rule: `every(seconds)` or `crontab(expression, timezone=...)`.
        name: unique name; the task's by default.
        arguments: arguments of the task.
        grace: seconds within which missed ticks are caught up, at most `CATCH_UP` of them.

    Raises:
        ConfigurationError: the name is taken, or a value is invalid.
    """
    name = task.name if name is None else name
    problem = ""
    encoded: dict[str, Any] = {}
    if not NAME.fullmatch(name):
        problem = "the name is invalid (use up to 100 letters, digits, hyphens and underscores)"
    elif name in SCHEDULES:
        problem = "the name is taken (pass another name=)"
    elif grace not in GRACES:
        problem = f"grace: {grace} is not from {GRACES[0]} to {GRACES[-1]} seconds"
    else:
        try:
            rule.check()
            encoded = task.arguments.encode((), arguments or {})
        except ValidationError as error:
            problem = f"arguments: {describe(error.errors())}"
        except (TypeError, ValueError) as error:
            problem = str(error)
    if problem:
        message = f"schedule {name}: {problem}"
        raise ConfigurationError(message)
    SCHEDULES[name] = Schedule(name, task, rule, encoded, grace)


def tick_id(name: str, tick: datetime) -> str:
    """Return the id of a tick's run: a UUID of version 8 with the seconds since 1970 in front of a hash of the name."""
    head = (tick - EPOCH) // timedelta(seconds=1)
    tail = int.from_bytes(sha256(name.encode()).digest()[:10])
    value = head << 80 | tail
    return str(UUID(int=value & ~(0xF << 76) & ~(0b11 << 62) | TICK_VERSION << 76 | 0b10 << 62))


def lateness() -> sa.Select[Any]:
    """Select name and lateness, the time since its next tick was due, of this version's schedules; 0 if paused."""
    late = sa.case((table.c.paused, timedelta()), else_=func.greatest(func.now() - table.c.next_tick, timedelta()))
    return select(table.c.name, late.label("late")).where(table.c.name.in_(SCHEDULES))


def overdue() -> sa.Select[Any]:
    """Select the name and the lateness of this version's schedules that are overdue, oldest first."""
    late = lateness().subquery()
    return select(late).where(late.c.late > OVERDUE).order_by(late.c.late.desc())


def running(wake: Callable[[], None]) -> AbstractAsyncContextManager[None]:
    """Enqueue due ticks in the background of a block; `wake` the relay for them."""
    return background(_run(wake), "schedules")


async def _run(wake: Callable[[], None]) -> None:
    installed = False
    while SCHEDULES:
        try:
            async with relay_engine().begin() as connection:
                enqueued = await (enqueue_due if installed else install)(connection)
            installed = True
            if enqueued:
                wake()
        except SQLAlchemyError as error:
            logger.warning("schedules wait for PostgreSQL", error=str(error))
        except Exception:  # a rule or a row that fails must not end the schedules of this process
            logger.exception("schedules failed, retrying")
        await asyncio.sleep(POLL)


async def install(connection: AsyncConnection) -> int:
    """Create the rows of new schedules, and replace changed rules; returns 0, no tick."""
    now = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    for name, each in sorted(SCHEDULES.items()):
        values = {"rule": str(each.rule), "next_tick": next(each.rule.ticks(now)), "seen_at": func.now()}
        new = upsert(table).values(name=name, **values)
        await connection.execute(
            new.on_conflict_do_update(index_elements=["name"], set_=values, where=table.c.rule != new.excluded.rule)
        )
    return 0


async def enqueue_due(connection: AsyncConnection) -> int:
    """Enqueue the due ticks of this version's schedules, and mark them as seen; returns the number of ticks."""
    enqueued = 0
    own = sa.tuple_(table.c.name, table.c.rule).in_([(name, str(each.rule)) for name, each in SCHEDULES.items()])

    def unmarked(since: timedelta) -> sa.ColumnElement[bool]:
        return table.c.seen_at < func.now() - since

    due = (
        select(table, func.now().label("now"))
        .where(
            (own & ((table.c.next_tick <= func.now()) | unmarked(SEEN)))
            | (table.c.name.in_(SCHEDULES) & unmarked(ABANDONED))
        )
        .order_by(table.c.name)
        .with_for_update(skip_locked=True)
    )
    for row in (await connection.execute(due)).all():
        each = SCHEDULES[row.name]
        values: dict[str, Any] = {"seen_at": func.now()}
        if row.rule != str(each.rule):
            # The version that started later has ended without taking this rule back.
            values |= {"rule": str(each.rule), "next_tick": next(each.rule.ticks(row.now))}
        elif row.next_tick <= row.now:
            start = max(row.next_tick - timedelta(seconds=1), row.now - timedelta(seconds=each.grace))
            due_ticks = takewhile(lambda tick: tick <= row.now, each.rule.ticks(start))  # noqa: B023 (consumed at once)
            ticks = deque(due_ticks, CATCH_UP)
            values["next_tick"] = next(each.rule.ticks(row.now))
            if ticks and not row.paused:
                values["last_tick"] = ticks[-1]
                enqueued += len(ticks)
                await connection.execute(
                    upsert(history.runs).on_conflict_do_nothing(),
                    [
                        {
                            "id": tick_id(row.name, tick),
                            "name": each.task.name,
                            "queue": each.task.queue_name,
                            "arguments": each.arguments,
                            "state": history.State.PENDING,
                            "outbox_action": history.OutboxAction.PUBLISH,
                        }
                        for tick in ticks
                    ],
                )
        await connection.execute(sa.update(table).where(table.c.name == row.name).values(**values))
    return enqueued
