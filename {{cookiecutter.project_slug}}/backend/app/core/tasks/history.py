"""The history: one row per run of a task, and the statements that change it.

A row moves PENDING -> STARTED -> SUCCESS, FAILURE or RETRY -> STARTED ..., and to REVOKED from any unfinished state.
The relay moves it from STARTED to PENDING after its deadline, and to FAILURE if its message cannot be delivered. An
operator moves it from SUCCESS or FAILURE to PENDING.
Every statement states the condition under which it applies, and changes nothing otherwise: the API, the relay and any
number of workers need no other coordination.

The functions return statements and execute nothing, so synchronous and asynchronous callers share them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, case, func, literal, null, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB, Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert

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

ENQUEUED_HEADER = "enqueued"
"""Header of the relay's messages: the run has a row, unless it was deleted with old runs."""

UNFINISHED = (State.PENDING, State.STARTED, State.RETRY)

_ended = sa.literal_column("task_runs.state IN ('SUCCESS', 'FAILURE', 'REVOKED')", sa.Boolean)  # as in an index

RETRIABLE = (State.SUCCESS, State.FAILURE)
"""States from which a run can be started again; workers refuse the id of a run that they have terminated."""

KEPT_ATTEMPTS = 20
"""Earlier attempts that a row keeps, the newest ones; of their tracebacks, the last 10,000 characters."""

INTERRUPTED = "the worker was lost or stopped"
"""Error of an attempt that was interrupted."""

HELD = datetime(9999, 1, 1, tzinfo=UTC)
"""`publish_at` of a row whose queue is paused: far in the future, so that the relay does not select it."""


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
    sa.Column("earlier_attempts", JSONB(none_as_null=True), comment="the oldest first"),
    sa.Column("retries", sa.Integer, nullable=False, server_default="0", comment="of the newest message"),
    sa.Column("losses", sa.Integer, nullable=False, server_default="0", comment="attempts whose worker was lost"),
    sa.Column("worker", sa.String(255), comment="Celery node name"),
    sa.Column("owner", sa.Integer, comment="worker process of the last attempt, by its advisory lock"),
    sa.Column("deadline", _time, comment="latest end of the last attempt"),
    sa.Column("fingerprint", sa.String(64), comment="of the arguments of a request with an idempotency key"),
    sa.Column("request_id", sa.String(100)),
    sa.Column("api_key", sa.String(100), comment="name of the API key of its request"),
    sa.Column("traceparent", sa.String(55), comment="span that enqueued it"),
    sa.Column("key", sa.String(255), comment="one unfinished run of its task"),
    sa.Column("message", JSONB(none_as_null=True), comment="chain, callbacks and the like of its message"),
    sa.Column("outbox_action", _enum(OutboxAction), comment="message for the relay to send"),
    sa.Column("publish_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("accepted_at", _time, nullable=False, server_default=func.now()),
    sa.Column("publish_at", _time, nullable=False, server_default=func.now(), comment="no earlier"),
    sa.Column("published_at", _time),
    sa.Column("started_at", _time, comment="of the last attempt"),
    sa.Column("stopped_at", _time, comment="of the last attempt, if another follows"),
    sa.Column("next_try_at", _time),
    sa.Column("ended_at", _time),
)

TWO_KEYS = 2  # https://www.postgresql.org/docs/current/view-pg-locks.html

_locks = sa.table("pg_locks", *map(sa.column, ("locktype", "classid", "objid", "objsubid", "pid")))
_owner_locks = (_locks.c.locktype == "advisory") & (_locks.c.objsubid == TWO_KEYS) & (_locks.c.classid == OWNER_LOCKS)

for filtered in ((), (runs.c.state,), (runs.c.name,), (runs.c.worker,)):  # of `page`
    sa.Index(None, *filtered, runs.c.accepted_at, runs.c.id)
sa.Index("ix_task_runs_outbox", runs.c.publish_at, postgresql_where=runs.c.outbox_action.is_not(None))
sa.Index("ix_task_runs_ended_at", runs.c.ended_at, postgresql_where=runs.c.ended_at.is_not(None))
sa.Index(
    "uq_task_runs_key",
    runs.c.name,
    runs.c.key,
    unique=True,
    postgresql_where=sa.text("key IS NOT NULL AND state IN ('PENDING', 'STARTED', 'RETRY')"),
)
sa.Index("ix_task_runs_key", *runs.c["name", "key", "accepted_at"], postgresql_where=runs.c.key.is_not(None))
sa.Index(
    "ix_task_runs_arguments",
    runs.c.arguments,
    postgresql_using="gin",
    postgresql_ops={"arguments": "jsonb_path_ops"},
    postgresql_where=sa.text("state IN ('SUCCESS', 'FAILURE', 'REVOKED')"),
)

paused_queues = sa.Table(
    "paused_queues",
    Base.metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("paused_at", _time, nullable=False, server_default=func.now()),
)


def _is_paused(queue: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return queue.in_(select(paused_queues.c.name))


# ---- the API -----------------------------------------------------------------------------------------------------


_insert = upsert(runs).values(state=State.PENDING, outbox_action=OutboxAction.PUBLISH)
_delay = bindparam("delay", type_=sa.Interval)

INSERT = _insert.values(publish_at=func.now() + _delay, next_try_at=func.now() + func.nullif(_delay, timedelta()))
"""Inserts runs for the relay to publish; each is a dictionary of the arguments of `enqueue`."""


def enqueue(
    id: str,  # noqa: A002 (the name of the column)
    name: str,
    queue: str,
    arguments: Mapping[str, Any],
    *,
    delay: timedelta = timedelta(),
    priority: int = 0,
    **values: str | None,
) -> ReturningInsert[str]:
    """Insert a run for the relay to publish after `delay`; returns its id. `values` are those of other columns.

    Returns nothing if a run has the id, or if an unfinished run of the task has the key.
    """
    options: dict[str, Any] = {"message": {"priority": priority}} if priority else {}
    if delay:
        options |= {"publish_at": func.now() + delay, "next_try_at": func.now() + delay}
    insert = _insert.values(id=id, name=name, queue=queue, arguments=arguments, **values, **options)
    return insert.on_conflict_do_nothing().returning(runs.c.id)


def find(run_id: str) -> sa.Select[Any]:
    """Select the row of a run."""
    return select(runs).where(runs.c.id == run_id)


Arguments = Sequence[Sequence[tuple[str, Any]]]
"""A filter: of each sequence, one pair of name and value must be among the arguments of the run."""


def matching(
    *,
    states: Sequence[State] | None = None,
    name: str | None = None,
    worker: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    arguments: Arguments = (),
    ids: Sequence[str] | None = None,
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter; those that are None match every run."""
    conditions: list[sa.ColumnElement[bool]] = []
    if states is not None:
        conditions.append(runs.c.state.in_(states))
    if name is not None:
        conditions.append(runs.c.name == name)
    if worker is not None:
        conditions.append(runs.c.worker == worker)
    if since is not None:
        conditions.append(runs.c.accepted_at >= since)
    if until is not None:
        conditions.append(runs.c.accepted_at < until)
    if ids is not None:
        conditions.append(runs.c.id.in_(ids))
    return conditions + _contain(arguments)


def _contain(arguments: Arguments) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the filter. The index finds arguments that contain a value, not those equal to it."""
    return [
        or_(*(runs.c.arguments.contains({name: value}) & _equals(name, value) for name, value in alternatives))
        for alternatives in arguments
    ]


def _equals(name: str, value: Any) -> sa.ColumnElement[bool]:
    return runs.c.arguments[name] == literal(value, JSONB)


def with_arguments(arguments: Arguments, limit: int) -> sa.CompoundSelect[str]:
    """Select the ids of up to `limit` runs with these arguments, in no order; each half has an index."""
    halves = (_ended, runs.c.state.in_(UNFINISHED))
    return sa.union_all(*(select(runs.c.id).where(half, *_contain(arguments)) for half in halves)).limit(limit)


def page(*, before: tuple[datetime, str] | None = None, limit: int, **filters: Any) -> sa.Select[Any]:
    """Select up to `limit` rows, newest first, older than the (`accepted_at`, `id`) of `before`."""
    statement = select(runs).order_by(runs.c.accepted_at.desc(), runs.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(tuple_(runs.c.accepted_at, runs.c.id) < tuple_(*map(literal, before)))
    return statement.where(*matching(**filters))


def first(limit: int, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the condition of being one of the oldest `limit` runs with these that no transaction is changing.

    PostgreSQL evaluates ARRAY once. A plan may evaluate IN for each row, and would then exceed the limit.
    """
    selected = select(runs.c.id).where(*conditions).order_by(runs.c.accepted_at).limit(limit).correlate(None)
    ids = selected.with_for_update(skip_locked=True).scalar_subquery()
    return runs.c.id == sa.any_(func.array(ids, type_=sa.ARRAY(sa.Text)))


def count(*conditions: sa.ColumnElement[bool]) -> sa.Select[int]:
    """Count the runs with these conditions."""
    return select(func.count()).select_from(runs).where(*conditions)


def is_retriable() -> sa.ColumnElement[bool]:
    """Return the condition of a run that may be started again: of those with a key, the newest if all have ended."""
    other = runs.alias()
    has_same_key = (other.c.name == runs.c.name) & (other.c.key == runs.c.key)
    newest = select(func.max(other.c.accepted_at)).where(has_same_key).scalar_subquery()
    # Literal states, as in the condition of the index: PostgreSQL does not use it with parameters.
    unfinished: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{state}'") for state in UNFINISHED]
    is_active = select(other).where(has_same_key, other.c.key.is_not(None), other.c.state.in_(unfinished)).exists()
    is_newest = (runs.c.accepted_at == newest) & ~is_active
    return runs.c.state.in_(RETRIABLE) & (runs.c.key.is_(None) | is_newest)


def retry(condition: sa.ColumnElement[bool]) -> sa.Update:
    """Start retriable runs again; retries and losses are counted from 0."""
    return (
        update(runs)
        .where(condition, is_retriable())
        .values(
            state=State.PENDING,
            stopped_at=runs.c.ended_at,
            publish_count=runs.c.attempts,  # none of the earlier messages is unanswered
            publish_at=func.now(),
            outbox_action=OutboxAction.PUBLISH,
            **dict.fromkeys(("ended_at", "progress", "result"), null()),
            message=runs.c.message.op("-")(sa.literal("expires", sa.Text)),  # the time may have passed
            **dict.fromkeys(("retries", "losses"), 0),
        )
    )


def revoke(condition: sa.ColumnElement[bool]) -> sa.Update:
    """End unfinished runs as REVOKED. A control message terminates running ones; `CLAIM` refuses the others."""
    return (
        update(runs)
        .where(condition, runs.c.state.in_(UNFINISHED))
        .values(
            state=State.REVOKED,
            ended_at=func.now(),
            next_try_at=null(),
            publish_at=func.now(),
            outbox_action=case((runs.c.state == State.STARTED, OutboxAction.REVOKE.value), else_=null()),
        )
    )


# ---- the relay ---------------------------------------------------------------------------------------------------


def pending_messages(limit: int, size: int) -> sa.Select[Any]:
    """Select due rows with an outbox action, oldest first, and lock them for the transaction.

    There are up to `limit`, and their arguments have up to `size` bytes, except for the first.
    """
    length = func.octet_length(sa.cast(runs.c.arguments, sa.Text)).label("length")
    due = (
        select(
            *runs.c["id", "name", "queue", "arguments", "attempts", "retries", "message", "state"],
            *runs.c["outbox_action", "publish_at", "traceparent"],
            _is_paused(runs.c.queue).label("is_paused"),
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


def hold(run_ids: Sequence[str]) -> sa.Update:
    """Hold these runs until their queue is resumed."""
    return update(runs).where(runs.c.id.in_(run_ids)).values(publish_at=HELD)


def release(limit: int) -> sa.Update:
    """Publish up to `limit` held runs of queues that have been resumed, oldest first."""
    is_held = runs.c.outbox_action.is_not(None) & (runs.c.publish_at == HELD)
    return (
        update(runs)
        .where(first(limit, is_held, ~_is_paused(runs.c.queue)))
        .values(publish_at=runs.c.accepted_at)
        .returning(runs.c.id)
    )


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

    A queue is first in, first out, but prefers messages with a priority. So a message is lost if the queue is `empty`,
    or now delivers a message that was published `waited` later, once and without priority. The wait doubles with each
    publication; after `publish_limit` of them the run ends as FAILURE. If the message exists nevertheless, the worker
    ignores one of the two.
    """
    is_first = (runs.c.state == State.STARTED) & (runs.c.attempts == 1) & (runs.c.queue == queue)
    is_plain = (runs.c.publish_count == 1) & runs.c.message["priority"].is_(None)
    delivered_now = select(func.max(runs.c.published_at)).where(is_first, is_plain).scalar_subquery()
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
        .where(first(limit, is_lost))
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


def delete_old(state: State, age: timedelta, limit: int) -> sa.Delete:
    """Delete up to `limit` runs that have ended in a state longer ago than `age`, oldest first."""
    until = func.now() - age
    is_old = (runs.c.state == state) & (runs.c.accepted_at < until) & (runs.c.ended_at < until)
    return sa.delete(runs).where(first(limit, is_old))


# ---- a worker ----------------------------------------------------------------------------------------------------

# Statements of an attempt are built once and take values as parameters: building takes longer than executing.
# Parameters with the name of a column set that column.


EARLIER_ATTEMPTS = f"""
    CASE WHEN task_runs.attempts > 0 THEN jsonb_path_query_array(
        coalesce(task_runs.earlier_attempts, '[]') || jsonb_build_object(
            'number', task_runs.attempts,
            'worker', task_runs.worker,
            'started_at', task_runs.started_at,
            'ended_at', task_runs.stopped_at,
            'error', CASE WHEN task_runs.stopped_at IS NULL THEN '{INTERRUPTED}' ELSE task_runs.error END,
            'traceback', CASE WHEN task_runs.stopped_at IS NOT NULL THEN right(task_runs.traceback, 10000) END
        ),
        '$[last - {KEPT_ATTEMPTS - 1} to last]'
    ) END
"""
"""The earlier attempts of a run that starts again: those before, and the last one."""


RECEIVED = ("id", "name", "queue", "arguments", "message", "retries")
"""Columns that the message of a run has."""


def _insert_received(*columns: str, is_paused: bool, **values: Any) -> Insert:
    """Insert the run of a message, only if its queue is paused or only if it is not."""
    row = {name: bindparam(name, type_=runs.c[name].type) for name in columns} | values
    condition = _is_paused(row["queue"])
    source = select(*(value.label(name) for name, value in row.items())).where(condition if is_paused else ~condition)
    return upsert(runs).from_select(list(row), source)


def _claim() -> ReturningInsert[int, int, str | None, bool]:
    new = _insert_received(
        *RECEIVED,
        "worker",
        "owner",
        is_paused=False,
        state=literal(State.STARTED, runs.c.state.type),
        attempts=literal(1),
        started_at=func.now(),
        deadline=func.now() + bindparam("limit", type_=sa.Interval),
    )
    kept = ("state", "started_at", "deadline", "worker", "owner", "retries", "message")
    is_own = runs.c.owner == new.excluded.owner  # a process executes one run at a time: the earlier attempt is over
    is_gone = runs.c.owner.not_in(select(_locks.c.objid).where(_owner_locks))
    is_lost = is_own | (bindparam("redelivered", type_=sa.Boolean) & is_gone)
    is_free = runs.c.state.in_((State.PENDING, State.RETRY)) | ((runs.c.state == State.STARTED) & is_lost)
    claim = new.on_conflict_do_update(
        index_elements=[runs.c.id],
        set_={
            **{name: new.excluded[name] for name in kept},
            **dict.fromkeys(("next_try_at", "progress", "outbox_action", "stopped_at"), null()),
            "attempts": runs.c.attempts + 1,
            "earlier_attempts": sa.literal_column(EARLIER_ATTEMPTS),
            "losses": runs.c.losses + case(((runs.c.state == State.STARTED) & ~is_own, 1), else_=0),
        },
        where=is_free & (runs.c.retries <= new.excluded.retries),
    )
    # xmax is 0 for a row that was inserted, and the id of the transaction for one that was updated.
    return claim.returning(
        *runs.c["attempts", "losses", "request_id"], sa.literal_column("task_runs.xmax = 0", sa.Boolean).label("is_new")
    )


CLAIM = _claim()
"""Starts an attempt for a message; returns its number, counted from 1, the losses before it, the id of the request
that enqueued it, and if the row is new.

Returns nothing if the run has ended, has a newer message or is running elsewhere, or if its queue is paused. A running
attempt is taken over when the broker has redelivered its message and its worker process is gone: the process'
sessions, and with them its advisory lock, end with it. A free lock alone proves nothing, as sessions can be cut while
their process works on.

A run that was not enqueued (it was sent by `delay()`, a shell or a chain) gets its row here.

Parameters: `limit` until the deadline, `redelivered`, `worker`, `owner` and those of `RECEIVED`.
"""


HOLD = (
    update(runs)
    .where(
        runs.c.id == bindparam("run_id"),
        runs.c.state.in_((State.PENDING, State.RETRY)),
        runs.c.outbox_action.is_(None),
        runs.c.retries <= bindparam("message_retries", type_=sa.Integer),
        _is_paused(bindparam("message_queue", type_=sa.String)),
    )
    .values(outbox_action=OutboxAction.PUBLISH, publish_at=HELD, publish_count=runs.c.attempts)
    .returning(runs.c.id)
)
"""Returns the run of a received message to the outbox if its queue is paused.

Parameters: `run_id`, `message_retries`, `message_queue`.
"""


def _hold_new() -> ReturningInsert[str]:
    new = _insert_received(
        *RECEIVED,
        is_paused=True,
        state=literal(State.PENDING, runs.c.state.type),
        outbox_action=literal(OutboxAction.PUBLISH, runs.c.outbox_action.type),
        publish_at=literal(HELD, _time),
    )
    return new.on_conflict_do_nothing().returning(runs.c.id)


HOLD_NEW = _hold_new()
"""Inserts the run of a received message into the outbox if its queue is paused. Parameters: those of `RECEIVED`."""


def discard(run_id: str) -> ReturningDelete[str]:
    """Delete the row that a claim has inserted for a message of a run that was deleted."""
    return sa.delete(runs).where(runs.c.id == run_id, runs.c.attempts == 1).returning(runs.c.id)


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
    stopped_at=func.now(),
    outbox_action=OutboxAction.PUBLISH,
    publish_at=func.now() + _countdown,
    next_try_at=func.now() + _countdown,
)
"""Records a failed attempt; the message with `retries` starts the next one after `countdown`.

Parameters: `countdown`, `retries`, `error`, `traceback`.
"""

_end = _attempt.values(ended_at=func.now(), outbox_action=null())  # a parked message is not sent any more

SUCCEED = _end.values(state=State.SUCCESS, error=null(), traceback=null()).returning(
    func.set_config("idle_in_transaction_session_timeout", "15s", True)
)
"""Ends a run as SUCCESS, and clears the error of earlier attempts. Parameter: `result`.

In the transaction of a task's session, PostgreSQL ends a session that does not commit within 15 s: the process is
frozen or cut off, and holds a lock on the row.
"""

FAIL = _end.values(state=State.FAILURE)
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
    is_attempt = (runs.c.worker == worker) & (runs.c.started_at < func.now() - limit / 2)
    return finish_externally(run_id, State.FAILURE, error).where(runs.c.state == State.STARTED, is_attempt)
