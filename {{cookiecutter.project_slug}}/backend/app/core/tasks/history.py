"""The history: one row per run of a task, and the statements that change it.

A row moves PENDING -> STARTED -> SUCCESS, FAILURE or RETRY -> STARTED ..., and to REVOKED from any unfinished state.
The relay moves it from STARTED to PENDING after its deadline, and to FAILURE if its message cannot be delivered.
Every statement states the condition under which it applies, and changes nothing otherwise: the API, the relay and any
number of workers need no other coordination.

The functions return statements and execute nothing, so synchronous and asynchronous callers share them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, case, func, insert, literal, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert

from app.core.database import OWNER_LOCKS, Base


class State(StrEnum):
    """Celery's task states that a row can have."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


PARKED_HEADER = "parked"
"""Header of a message for a running attempt: it may be taken over as if the message was redelivered."""

UNFINISHED = (State.PENDING, State.STARTED, State.RETRY)


class OutboxAction(StrEnum):
    """The message that the relay has to send for a run."""

    PUBLISH = "publish"
    REVOKE = "revoke"


def _enum(kind: type[StrEnum]) -> sa.Enum:
    return sa.Enum(kind, native_enum=False, length=16, values_callable=lambda members: [str(each) for each in members])


_time = sa.DateTime(timezone=True)

runs = sa.Table(
    "task_runs",
    Base.metadata,
    sa.Column("id", sa.String(255), primary_key=True, comment="Celery's task id"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("queue", sa.String(255), nullable=False),
    sa.Column("arguments", JSONB, nullable=False, comment="argument by name"),
    sa.Column("state", _enum(State), nullable=False),
    sa.Column("result", JSONB),
    sa.Column("error", sa.Text, comment="type and message of the last exception"),
    sa.Column("traceback", sa.Text),
    sa.Column("progress", JSONB, comment='{"done": number, "total": number}'),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0", comment="number of starts"),
    sa.Column("retries", sa.Integer, nullable=False, server_default="0", comment="of the newest message"),
    sa.Column("losses", sa.Integer, nullable=False, server_default="0", comment="attempts whose worker was lost"),
    sa.Column("worker", sa.String(255), comment="Celery node name"),
    sa.Column("owner", sa.Integer, comment="worker process of the last attempt, by its advisory lock"),
    sa.Column("deadline", _time, comment="latest end of the last attempt"),
    sa.Column("message", JSONB(none_as_null=True), comment="chain, callbacks and the like of its message"),
    sa.Column("outbox_action", _enum(OutboxAction), comment="message for the relay to send"),
    sa.Column("publish_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("accepted_at", _time, nullable=False, server_default=func.now()),
    sa.Column("publish_at", _time, nullable=False, server_default=func.now(), comment="no earlier"),
    sa.Column("published_at", _time),
    sa.Column("started_at", _time, comment="of the last attempt"),
    sa.Column("next_try_at", _time),
    sa.Column("ended_at", _time),
)

TWO_KEYS = 2  # https://www.postgresql.org/docs/current/view-pg-locks.html

_locks = sa.table("pg_locks", *map(sa.column, ("locktype", "classid", "objid", "objsubid", "pid")))
_owner_locks = (_locks.c.locktype == "advisory") & (_locks.c.objsubid == TWO_KEYS) & (_locks.c.classid == OWNER_LOCKS)

for filtered in ((), (runs.c.state,), (runs.c.name,), (runs.c.worker,)):  # of `page`
    sa.Index(None, *filtered, runs.c.accepted_at, runs.c.id)
sa.Index("ix_task_runs_outbox", runs.c.publish_at, postgresql_where=runs.c.outbox_action.is_not(None))


# ---- the API -----------------------------------------------------------------------------------------------------


INSERT = insert(runs).values(state=State.PENDING, outbox_action=OutboxAction.PUBLISH)
"""Inserts runs for the relay to publish; each is a dictionary of the arguments of `enqueue`."""


def enqueue(id: str, name: str, queue: str, arguments: Mapping[str, Any]) -> ReturningInsert[str]:  # noqa: A002
    """Insert a run for the relay to publish; returns its id."""
    return INSERT.values(id=id, name=name, queue=queue, arguments=arguments).returning(runs.c.id)


def find(run_id: str) -> sa.Select[Any]:
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
) -> sa.Select[Any]:
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


def revoke(run_id: str) -> sa.Update:
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


def pending_messages(limit: int, size: int) -> sa.Select[Any]:
    """Select due rows with an outbox action, oldest first, and lock them for the transaction.

    There are up to `limit`, and their arguments have up to `size` bytes, except for the first.
    """
    length = func.octet_length(sa.cast(runs.c.arguments, sa.Text)).label("length")
    due = (
        select(
            *runs.c["id", "name", "queue", "arguments", "retries", "message", "state", "outbox_action", "publish_at"],
            length,
        )
        .where(runs.c.outbox_action.is_not(None), runs.c.publish_at <= func.now())
        .order_by(runs.c.publish_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte()
    )
    until = func.sum(due.c.length).over(order_by=due.c.publish_at, rows=(None, 0)).label("until")
    counted = select(due, until).subquery()
    return select(counted).where(counted.c.until - counted.c.length < size)


def published(run_ids: Sequence[str]) -> sa.Update:
    """Record that the broker has confirmed the messages of these runs."""
    is_parked = runs.c.state == State.STARTED
    return (
        update(runs)
        .where(runs.c.id.in_(run_ids))
        .values(
            outbox_action=null(),
            published_at=case((is_parked, runs.c.published_at), else_=func.now()),
            publish_count=runs.c.publish_count + case((is_parked, 0), else_=1),
        )
    )


def postpone(run_ids: Sequence[str], delay: timedelta) -> sa.Update:
    """Publish these runs later, so that messages the broker refuses do not hold up the others."""
    return update(runs).where(runs.c.id.in_(run_ids)).values(publish_at=func.now() + delay)


def terminate_overdue() -> sa.Select[bool]:
    """End the sessions of worker processes whose runs are past their deadline: they may hold locks on the rows."""
    owners = select(runs.c.owner).where(_is_overdue())
    return select(func.pg_terminate_backend(_locks.c.pid)).where(_owner_locks, _locks.c.objid.in_(owners))


def requeue_overdue() -> sa.Update:
    """Requeue running attempts that are past their deadline: the process is dead, frozen or cut off."""
    return (
        update(runs)
        .where(_is_overdue())
        .values(
            state=State.PENDING, losses=runs.c.losses + 1, outbox_action=OutboxAction.PUBLISH, publish_at=func.now()
        )
        .returning(runs.c.id)
    )


def _is_overdue() -> sa.ColumnElement[bool]:
    return (runs.c.state == State.STARTED) & (runs.c.deadline < func.now())


def requeue_lost(queue: str, *, empty: bool, waited: timedelta, publish_limit: int, limit: int) -> sa.Update:
    """Requeue up to `limit` runs of a queue whose message was lost; returns the id and the new state of each.

    A queue is first in, first out. So a message is lost if the queue is `empty`, or now delivers a message that was
    published `waited` later. The wait doubles with each publication; after `publish_limit` of them the run ends as
    FAILURE. If the message exists nevertheless, the worker ignores one of the two.
    """
    is_first_attempt = (runs.c.state == State.STARTED) & (runs.c.attempts == 1) & (runs.c.queue == queue)
    delivered_now = select(func.max(runs.c.published_at)).where(is_first_attempt).scalar_subquery()
    unanswered = runs.c.publish_count - runs.c.attempts
    backoff = waited * func.power(2, func.least(func.greatest(unanswered, 1), publish_limit) - 1)
    due = func.greatest(runs.c.published_at, runs.c.started_at, runs.c.next_try_at)
    too_often = unanswered >= publish_limit
    is_lost = (
        (runs.c.queue == queue)
        & runs.c.state.in_((State.PENDING, State.RETRY))
        & runs.c.outbox_action.is_(None)
        & (due + backoff < (func.now() if empty else delivered_now))
    )
    return (
        update(runs)
        .where(runs.c.id.in_(select(runs.c.id).where(is_lost).limit(limit).with_for_update(skip_locked=True)))
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

# Statements of an attempt are built once and take values as parameters: building takes longer than executing.
# Parameters with the name of a column set that column.


def _claim() -> ReturningInsert[int, int]:
    new = upsert(runs).values(
        state=State.STARTED,
        attempts=1,
        started_at=func.now(),
        deadline=func.now() + bindparam("limit", type_=sa.Interval),
    )
    kept = ("state", "started_at", "deadline", "worker", "owner", "retries", "message")
    is_own = runs.c.owner == new.excluded.owner  # a process executes one run at a time: the earlier attempt is over
    is_gone = runs.c.owner.not_in(select(_locks.c.objid).where(_owner_locks))
    is_lost = is_own | (bindparam("redelivered", type_=sa.Boolean) & is_gone)
    is_free = runs.c.state.in_((State.PENDING, State.RETRY)) | ((runs.c.state == State.STARTED) & is_lost)
    return new.on_conflict_do_update(
        index_elements=[runs.c.id],
        set_={
            **{name: new.excluded[name] for name in kept},
            **dict.fromkeys(("next_try_at", "progress", "outbox_action"), null()),
            "attempts": runs.c.attempts + 1,
            "losses": runs.c.losses + case(((runs.c.state == State.STARTED) & ~is_own, 1), else_=0),
        },
        where=is_free & (runs.c.retries <= new.excluded.retries),
    ).returning(runs.c.attempts, runs.c.losses)


CLAIM = _claim()
"""Starts an attempt for a message; returns the attempt's number, counted from 1, and the losses before it.

Returns nothing if the run has ended, has a newer message, or is running elsewhere. A running attempt is taken over
when the broker has redelivered its message and its worker process is gone: the process' sessions, and with them its
advisory lock, end with it. A free lock alone proves nothing, as sessions can be cut while their process works on.

A run that was not enqueued (it was sent by `delay()`, a shell or a chain) gets its row here.

Parameters: `limit` until the deadline, `redelivered`, and `id`, `name`, `queue`, `arguments`, `message`, `retries`,
`worker`, `owner`.
"""


def park(run_id: str, delay: timedelta) -> sa.Update:
    """Publish a running run again later: its message was redelivered, but its worker process is alive."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == State.STARTED, runs.c.outbox_action.is_(None))
        .values(outbox_action=OutboxAction.PUBLISH, publish_at=func.now() + delay)
        .returning(runs.c.id)
    )


def exclude_from_losses(run_ids: Sequence[str], worker: str) -> sa.Update:
    """Exclude the end of these attempts from the losses: their worker stops or has lost the broker, and ends them."""
    is_attempt = (runs.c.state == State.STARTED) & (runs.c.worker == worker)
    return update(runs).where(runs.c.id.in_(run_ids), is_attempt).values(losses=runs.c.losses - 1)


_attempt = (
    update(runs)
    .where(runs.c.id == bindparam("run_id"), runs.c.state == State.STARTED, runs.c.attempts == bindparam("attempt"))
    .returning(runs.c.id)
)
"""Updates a run on behalf of its current attempt only; returns its id. Parameters: `run_id`, the number `attempt`."""

PROGRESS = _attempt
"""Records the progress of an attempt. Parameter: `progress`."""

_countdown = bindparam("countdown", type_=sa.Interval)

RETRY = _attempt.values(
    state=State.RETRY,
    outbox_action=OutboxAction.PUBLISH,
    publish_at=func.now() + _countdown,
    next_try_at=func.now() + _countdown,
)
"""Records a failed attempt; the message with `retries` starts the next one after `countdown`.

Parameters: `countdown`, `retries`, `error`, `traceback`.
"""

SUCCEED = _attempt.values(state=State.SUCCESS, error=null(), traceback=null(), ended_at=func.now()).returning(
    func.set_config("idle_in_transaction_session_timeout", "15s", True)
)
"""Ends a run as SUCCESS, and clears the error of earlier attempts. Parameter: `result`.

In the transaction of a task's session, PostgreSQL ends a session that does not commit within 15 s: the process is
frozen or cut off, and holds a lock on the row.
"""

FAIL = _attempt.values(state=State.FAILURE, ended_at=func.now())
"""Ends a run as FAILURE. Parameters: `error`, `traceback`."""


def finish_externally(run_id: str, state: State, error: str | None = None) -> sa.Update:
    """End an unfinished run on behalf of the relay, or of a revocation in Flower."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
        .values(state=state, error=error, ended_at=func.now(), next_try_at=null(), outbox_action=null())
        .returning(runs.c.id)
    )


def exceed_time_limit(run_id: str, worker: str, limit: timedelta, error: str) -> sa.Update:
    """End a run whose process was killed at its hard time limit, if no later attempt has started."""
    is_attempt = (runs.c.worker == worker) & (runs.c.started_at < func.now() - limit + timedelta(seconds=5))
    return finish_externally(run_id, State.FAILURE, error).where(runs.c.state == State.STARTED, is_attempt)
