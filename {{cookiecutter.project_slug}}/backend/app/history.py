"""The history: one row for each run of a task, from the moment it is accepted, and the statements that move it on.

A row moves PENDING -> STARTED -> SUCCESS, FAILURE or RETRY -> STARTED ..., and to REVOKED from any state that is not an
end. Every statement here states what it expects of the row it changes, and changes nothing where that does not hold: so
the API, the relay and any number of workers need no other agreement.

The functions return statements and run nothing; they serve asynchronous and synchronous connections alike.
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
    Insert,
    Integer,
    MetaData,
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


class State(StrEnum):
    """Celery's task states, as far as the history knows them."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


UNFINISHED = (State.PENDING, State.STARTED, State.RETRY)


class Publication(StrEnum):
    """What the relay has yet to tell the broker of a run."""

    RUN = "run"
    REVOCATION = "revocation"


def _one_of(values: type[StrEnum]) -> Enum:
    return Enum(values, native_enum=False, length=16, values_callable=lambda members: [str(each) for each in members])


metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

runs = Table(
    "task_runs",
    metadata,
    Column("id", String(255), primary_key=True, comment="Celery's task id"),
    Column("name", String(255), nullable=False),
    Column("arguments", JSONB, nullable=False, comment="argument by name"),
    Column("state", _one_of(State), nullable=False),
    Column("result", JSONB),
    Column("error", Text, comment="type and message of the last exception"),
    Column("traceback", Text),
    Column("progress", JSONB, comment='{"done": number, "total": number}'),
    Column("attempts", Integer, nullable=False, server_default="0", comment="how often it was started"),
    Column("retries", Integer, nullable=False, server_default="0", comment="of the newest message for it"),
    Column("worker", String(255), comment="Celery's node name"),
    Column("to_publish", _one_of(Publication), comment="what the relay has yet to tell the broker"),
    Column("publications", Integer, nullable=False, server_default="0", comment="how often it was sent"),
    Column("accepted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("published_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True), comment="of the last attempt"),
    Column("next_try_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
)

Index(None, runs.c.accepted_at, runs.c.id)
Index(None, runs.c.state, runs.c.accepted_at, runs.c.id)
Index("ix_task_runs_to_publish", runs.c.accepted_at, postgresql_where=runs.c.to_publish.is_not(None))


# ---- the API -----------------------------------------------------------------------------------------------------


def accept(run_id: str, name: str, arguments: Mapping[str, Any]) -> Insert:
    """Record a run as accepted; the relay publishes it."""
    return insert(runs).values(
        id=run_id, name=name, arguments=arguments, state=State.PENDING, to_publish=Publication.RUN
    )


def find(run_id: str) -> Select[Any]:
    """The row of one run, or none."""
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
    """Up to `limit` rows, newest first, that came before the (`accepted_at`, `id`) of `before`."""
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
    """End a run that has not ended as REVOKED; returns its row. Workers are told only of what was published."""
    never_published = runs.c.to_publish.is_not_distinct_from(Publication.RUN) & (runs.c.attempts == 0)
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
        .values(
            state=State.REVOKED,
            ended_at=func.now(),
            next_try_at=null(),
            to_publish=case((never_published, null()), else_=Publication.REVOCATION.value),
        )
        .returning(*runs.c)
    )


# ---- the relay ---------------------------------------------------------------------------------------------------


def to_publish(limit: int) -> Select[Any]:
    """Up to `limit` rows that the broker has to be told of, oldest first, locked until the transaction ends."""
    return (
        select(runs.c.id, runs.c.name, runs.c.arguments, runs.c.retries, runs.c.to_publish)
        .where(runs.c.to_publish.is_not(None))
        .order_by(runs.c.accepted_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def published(run_ids: Sequence[str]) -> Update:
    """Record that the broker has confirmed what it was told of these runs."""
    return (
        update(runs)
        .where(runs.c.id.in_(run_ids))
        .values(to_publish=null(), published_at=func.now(), publications=runs.c.publications + 1)
    )


def _nobody_works_on_it() -> ColumnElement[bool]:
    locks = table("pg_locks", column("locktype"), column("classid"), column("objid"), column("objsubid"))
    high, low = cast(locks.c.classid, BigInteger), cast(locks.c.objid, BigInteger)
    key = high.bitwise_lshift(literal(32, Integer)).bitwise_or(low)
    return ~exists(
        select(locks.c.locktype).where(
            locks.c.locktype == "advisory", locks.c.objsubid == 1, key == claim_key(runs.c.id)
        )
    )


def bring_back(waited: timedelta, publications: int, longest: timedelta) -> Update:
    """Publish runs again that no message stands for and nobody works on; returns the id and the new state of each.

    To be run while the queue is empty: then a run that has been waiting for `waited`, doubled with each publication,
    has lost its message (the queue was purged, the message went to the dead letters). If a worker has just taken it,
    the second message is refused as a duplicate. After so many `publications` the run ends as FAILURE.

    A restart of PostgreSQL ends all locks, and a task at work takes its own again with its next statement only. So what
    was started before it is left alone until no attempt can be at work any more, which takes `longest`.
    """
    lock_tells = or_(
        runs.c.state != State.STARTED,
        runs.c.started_at > func.pg_postmaster_start_time(),
        runs.c.started_at < func.now() - longest,
    )
    last_moved = func.greatest(runs.c.accepted_at, runs.c.published_at, runs.c.started_at, runs.c.next_try_at)
    too_often = runs.c.publications >= publications
    return (
        update(runs)
        .where(
            runs.c.state.in_(UNFINISHED),
            runs.c.to_publish.is_(None),
            last_moved < func.now() - waited * func.power(2, func.least(runs.c.publications, publications) - 1),
            lock_tells,
            _nobody_works_on_it(),
        )
        .values(
            state=case((too_often, State.FAILURE.value), else_=runs.c.state),
            error=case((too_often, f"lost: no worker took its message, sent {publications} times"), else_=runs.c.error),
            ended_at=case((too_often, func.now()), else_=null()),
            to_publish=case((too_often, null()), else_=Publication.RUN.value),
        )
        .returning(runs.c.id, runs.c.state)
    )


# ---- a run, in a worker ------------------------------------------------------------------------------------------


def claim_key(run_id: ColumnElement[str] | str) -> ColumnElement[int]:
    """The key of the advisory lock that the session working on a run holds."""
    return func.hashtextextended(run_id, 0, type_=BigInteger)


def try_lock(run_id: str) -> ColumnElement[bool]:
    """Whether this session now holds the lock of a run; at once, without waiting for another's."""
    return func.pg_try_advisory_lock(claim_key(run_id), type_=Boolean)


def unlock_all() -> ColumnElement[None]:
    """Let go of every lock of this session."""
    return func.pg_advisory_unlock_all()


def claim(run_id: str, name: str, arguments: Mapping[str, Any], retries: int, worker: str) -> Insert:
    """Start an attempt for a message that has seen `retries` retries; returns the attempt's number, counted from 1.

    Returns nothing when the run has ended, or when a newer message than this one stands for the run. A run that the API
    did not accept (it came from beat, a shell or a chain) gets its row here.
    """
    attempt = {
        "state": State.STARTED,
        "worker": worker,
        "started_at": func.now(),
        "next_try_at": null(),
        "progress": null(),
        "to_publish": null(),
        "retries": retries,
    }
    statement = upsert(runs).values(id=run_id, name=name, arguments=arguments, attempts=1, **attempt)
    return statement.on_conflict_do_update(
        index_elements=[runs.c.id],
        set_={**attempt, "attempts": runs.c.attempts + 1},
        where=runs.c.state.in_(UNFINISHED) & (runs.c.retries <= retries),
    ).returning(runs.c.attempts)


def _attempt(run_id: str, attempt: int) -> Update:
    """A change that only the current attempt of a run may make; returns its id."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == State.STARTED, runs.c.attempts == attempt)
        .returning(runs.c.id)
    )


def progress(run_id: str, attempt: int, done: float, total: float) -> Update:
    """Record how far an attempt has come."""
    return _attempt(run_id, attempt).values(progress={"done": done, "total": total})


def retry(run_id: str, attempt: int, *, retries: int, error: str, traceback: str, countdown: float) -> Update:
    """Record that an attempt failed and the message with `retries` will start the next in `countdown` seconds."""
    return _attempt(run_id, attempt).values(
        state=State.RETRY,
        retries=retries,
        error=error,
        traceback=traceback,
        next_try_at=func.now() + timedelta(seconds=countdown),
    )


def succeed(run_id: str, attempt: int, result: Any) -> Update:
    """End a run as SUCCESS. An error that an earlier attempt left is gone with it."""
    return _attempt(run_id, attempt).values(
        state=State.SUCCESS, result=result, error=null(), traceback=null(), ended_at=func.now()
    )


def fail(run_id: str, attempt: int, error: str, traceback: str | None) -> Update:
    """End a run as FAILURE."""
    return _attempt(run_id, attempt).values(state=State.FAILURE, error=error, traceback=traceback, ended_at=func.now())


def end_from_outside(run_id: str, state: State, error: str | None = None) -> Update:
    """End a run that cannot do it itself: its process was killed (a hard time limit, a revocation in Flower)."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
        .values(state=state, error=error, ended_at=func.now(), next_try_at=null(), to_publish=null())
        .returning(runs.c.id)
    )
