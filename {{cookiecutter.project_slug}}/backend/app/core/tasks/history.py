"""The history: one row per run of a task, and the statements that change it.

A row moves PENDING -> STARTED -> SUCCESS, FAILURE or RETRY -> STARTED ..., and to REVOKED from any unfinished state.
Every statement states the condition under which it applies, and changes nothing otherwise: the API, the relay and any
number of workers need no other coordination.

The functions return statements and execute nothing, so synchronous and asynchronous callers share them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Enum,
    Index,
    Integer,
    Select,
    String,
    Table,
    Text,
    Update,
    case,
    cast,
    column,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    table,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert

from app.core.database import Base


class State(StrEnum):
    """Celery's task states that a row can have."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


UNFINISHED = (State.PENDING, State.STARTED, State.RETRY)


class OutboxAction(StrEnum):
    """The message that the relay has to send for a run."""

    PUBLISH = "publish"
    REVOKE = "revoke"


def _enum(values: type[StrEnum]) -> Enum:
    return Enum(values, native_enum=False, length=16, values_callable=lambda members: [str(each) for each in members])


runs = Table(
    "task_runs",
    Base.metadata,
    Column("id", String(255), primary_key=True, comment="Celery's task id"),
    Column("name", String(255), nullable=False),
    Column("queue", String(255), nullable=False),
    Column("arguments", JSONB, nullable=False, comment="argument by name"),
    Column("state", _enum(State), nullable=False),
    Column("result", JSONB),
    Column("error", Text, comment="type and message of the last exception"),
    Column("traceback", Text),
    Column("progress", JSONB, comment='{"done": number, "total": number}'),
    Column("attempts", Integer, nullable=False, server_default="0", comment="number of starts"),
    Column("retries", Integer, nullable=False, server_default="0", comment="of the newest message"),
    Column("worker", String(255), comment="Celery node name"),
    Column("outbox_action", _enum(OutboxAction), comment="message for the relay to send"),
    Column("publish_count", Integer, nullable=False, server_default="0"),
    Column("accepted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("publish_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="no earlier"),
    Column("published_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True), comment="of the last attempt"),
    Column("next_try_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
)

Index(None, runs.c.accepted_at, runs.c.id)
Index(None, runs.c.state, runs.c.accepted_at, runs.c.id)
Index("ix_task_runs_outbox", runs.c.publish_at, postgresql_where=runs.c.outbox_action.is_not(None))


# ---- the API -----------------------------------------------------------------------------------------------------


def enqueue(run_id: str, name: str, queue: str, arguments: Mapping[str, Any]) -> ReturningInsert[str]:
    """Insert a run for the relay to publish; returns its id."""
    return (
        insert(runs)
        .values(
            id=run_id,
            name=name,
            queue=queue,
            arguments=arguments,
            state=State.PENDING,
            outbox_action=OutboxAction.PUBLISH,
        )
        .returning(runs.c.id)
    )


def find(run_id: str) -> Select[Any]:
    """Select the row of a run."""
    return select(runs).where(runs.c.id == run_id)


def page(
    *,
    states: Sequence[State] = (),
    name: str | None = None,
    worker: str | None = None,
    since: datetime | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int,
) -> Select[Any]:
    """Select up to `limit` rows, newest first, older than the (`accepted_at`, `id`) of `before`."""
    statement = select(runs).order_by(runs.c.accepted_at.desc(), runs.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(runs.c.state.in_(states))
    if name is not None:
        statement = statement.where(runs.c.name == name)
    if worker is not None:
        statement = statement.where(runs.c.worker == worker)
    if since is not None:
        statement = statement.where(runs.c.accepted_at >= since)
    if before is not None:
        statement = statement.where(tuple_(runs.c.accepted_at, runs.c.id) < tuple_(*map(literal, before)))
    return statement


def revoke(run_id: str) -> Update:
    """End an unfinished run as REVOKED; returns its row. Workers are informed only if it has been published."""
    never_published = runs.c.outbox_action.is_not_distinct_from(OutboxAction.PUBLISH) & (runs.c.attempts == 0)
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
        .values(
            state=State.REVOKED,
            ended_at=func.now(),
            next_try_at=null(),
            publish_at=func.now(),
            outbox_action=case((never_published, null()), else_=OutboxAction.REVOKE.value),
        )
        .returning(*runs.c)
    )


# ---- the relay ---------------------------------------------------------------------------------------------------


def pending_messages(limit: int) -> Select[Any]:
    """Select up to `limit` due rows with an outbox action, oldest first, and lock them for the transaction."""
    return (
        select(runs.c.id, runs.c.name, runs.c.queue, runs.c.arguments, runs.c.retries, runs.c.outbox_action)
        .where(runs.c.outbox_action.is_not(None), runs.c.publish_at <= func.now())
        .order_by(runs.c.publish_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def published(run_ids: Sequence[str]) -> Update:
    """Record that the broker has confirmed the messages of these runs."""
    return (
        update(runs)
        .where(runs.c.id.in_(run_ids))
        .values(outbox_action=null(), published_at=func.now(), publish_count=runs.c.publish_count + 1)
    )


def postpone(run_ids: Sequence[str], delay: timedelta) -> Update:
    """Publish these runs later, so that messages the broker refuses do not hold up the others."""
    return update(runs).where(runs.c.id.in_(run_ids)).values(publish_at=func.now() + delay)


def _is_unlocked() -> ColumnElement[bool]:
    locks = table("pg_locks", column("locktype"), column("classid"), column("objid"), column("objsubid"))
    high, low = cast(locks.c.classid, BigInteger), cast(locks.c.objid, BigInteger)
    key = high.bitwise_lshift(literal(32, Integer)).bitwise_or(low)
    return ~exists(
        select(locks.c.locktype).where(
            locks.c.locktype == "advisory", locks.c.objsubid == 1, key == claim_key(runs.c.id)
        )
    )


def requeue_lost(queue: str, waited: timedelta, publish_limit: int, longest: timedelta) -> Update:
    """Requeue runs that have neither a message nor a live worker; returns the id and the new state of each.

    To be executed while `queue` is empty: a run that has then waited for `waited`, doubled with each publication, has
    lost its message (the queue was purged, the message is a dead letter). If a worker has just received it, the second
    message is refused as a duplicate. After `publish_limit` publications the run ends as FAILURE.

    A restart of PostgreSQL releases all locks, and a running task takes its own again with its next statement only. So
    a run started before it is left alone until no attempt can still be running, which takes `longest`.
    """
    lock_is_reliable = or_(
        runs.c.state != State.STARTED,
        runs.c.started_at > func.pg_postmaster_start_time(),
        runs.c.started_at < func.now() - longest,
    )
    last_change = func.greatest(runs.c.accepted_at, runs.c.published_at, runs.c.started_at, runs.c.next_try_at)
    too_often = runs.c.publish_count >= publish_limit
    return (
        update(runs)
        .where(
            runs.c.queue == queue,
            runs.c.state.in_(UNFINISHED),
            runs.c.outbox_action.is_(None),
            last_change < func.now() - waited * func.power(2, func.least(runs.c.publish_count, publish_limit) - 1),
            lock_is_reliable,
            _is_unlocked(),
        )
        .values(
            state=case((too_often, State.FAILURE.value), else_=runs.c.state),
            error=case(
                (too_often, f"lost: no worker took its message, sent {publish_limit} times"), else_=runs.c.error
            ),
            ended_at=case((too_often, func.now()), else_=null()),
            publish_at=func.now(),
            outbox_action=case((too_often, null()), else_=OutboxAction.PUBLISH.value),
        )
        .returning(runs.c.id, runs.c.state)
    )


# ---- a worker ----------------------------------------------------------------------------------------------------


def claim_key(run_id: ColumnElement[str] | str) -> ColumnElement[int]:
    """Return the key of the advisory lock that the session executing a run holds."""
    return func.hashtextextended(run_id, 0, type_=BigInteger)


def try_lock(run_id: str) -> ColumnElement[bool]:
    """Take the lock of a run for this session, without waiting; true if it is held now."""
    return func.pg_try_advisory_lock(claim_key(run_id), type_=Boolean)


def unlock_all() -> ColumnElement[None]:
    """Release every lock of this session."""
    return func.pg_advisory_unlock_all()


def claim(
    run_id: str, *, name: str, queue: str, arguments: Mapping[str, Any], retries: int, worker: str
) -> ReturningInsert[int]:
    """Start an attempt for a message with `retries` retries; returns the attempt's number, counted from 1.

    Returns nothing if the run has ended or a newer message exists. A run that was not enqueued (it was sent by
    `delay()`, a shell or a chain) gets its row here.
    """
    attempt = {
        "state": State.STARTED,
        "worker": worker,
        "started_at": func.now(),
        "next_try_at": null(),
        "progress": null(),
        "outbox_action": null(),
        "retries": retries,
    }
    statement = upsert(runs).values(id=run_id, name=name, queue=queue, arguments=arguments, attempts=1, **attempt)
    return statement.on_conflict_do_update(
        index_elements=[runs.c.id],
        set_={**attempt, "attempts": runs.c.attempts + 1},
        where=runs.c.state.in_(UNFINISHED) & (runs.c.retries <= retries),
    ).returning(runs.c.attempts)


def _attempt(run_id: str, attempt: int) -> Update:
    """Update a run on behalf of its current attempt only; returns its id."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == State.STARTED, runs.c.attempts == attempt)
        .returning(runs.c.id)
    )


def progress(run_id: str, attempt: int, done: float, total: float) -> Update:
    """Record the progress of an attempt."""
    return _attempt(run_id, attempt).values(progress={"done": done, "total": total})


def retry(run_id: str, attempt: int, *, retries: int, error: str, traceback: str, countdown: float) -> Update:
    """Record a failed attempt; the message with `retries` starts the next in `countdown` seconds."""
    return _attempt(run_id, attempt).values(
        state=State.RETRY,
        retries=retries,
        error=error,
        traceback=traceback,
        next_try_at=func.now() + timedelta(seconds=countdown),
    )


def succeed(run_id: str, attempt: int, result: Any) -> Update:
    """End a run as SUCCESS, and clear the error of earlier attempts."""
    return _attempt(run_id, attempt).values(
        state=State.SUCCESS, result=result, error=null(), traceback=null(), ended_at=func.now()
    )


def fail(run_id: str, attempt: int, error: str, traceback: str | None) -> Update:
    """End a run as FAILURE."""
    return _attempt(run_id, attempt).values(state=State.FAILURE, error=error, traceback=traceback, ended_at=func.now())


def finish_externally(run_id: str, state: State, error: str | None = None) -> Update:
    """End a run whose process was killed (a hard time limit, a revocation in Flower)."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
        .values(state=state, error=error, ended_at=func.now(), next_try_at=null(), outbox_action=null())
        .returning(runs.c.id)
    )
