"""Retry of ended runs, one or all of a filter, and revocation of all runs of a filter."""

import contextlib
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field, JsonValue, ValidationError
from sqlalchemy import ColumnElement, Update, func, select
from sqlalchemy.exc import IntegrityError

from app.core.api.problems import COMMON, responses
from app.core.api.runs import Filters, TaskRun, execute, get_task
from app.core.api.transaction import CurrentRelay
from app.core.tasks import history
from app.core.tasks.arguments import describe
from app.core.tasks.history import RETRIABLE, UNFINISHED, State, runs
from app.core.tasks.registry import REGISTRY
from app.core.tasks.relay import Relay

router = APIRouter(prefix="/tasks", tags=["tasks"], responses=COMMON)

LIMIT = 10_000  # runs that one call changes
ATTEMPTS = 3  # of a call that conflicts with others
NOT_RETRIED = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


class Changes(BaseModel, extra="forbid"):
    """Changes to a run before it is repeated."""

    arguments: dict[str, JsonValue] | None = Field(None, description="those to change")


class Changed(BaseModel):
    """The runs that a call has changed, and those that are left for another."""

    changed: int = Field(description=f"at most {LIMIT}, the oldest ones")
    remaining: int = Field(description="other runs that match; another transaction may be changing some")


class Selection(Filters):
    """Query parameters that select runs to change."""

    everything: bool = Field(False, alias="all", description="required without other filters: every run in the states")

    def matching(self, states: Sequence[State]) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter; answer 422 if it selects every run without `all`."""
        values = self.values()
        if not self.everything and not any(values.values()):
            message = "every run in these states matches (give name, worker, since, until or argument, or all=true)"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"filter: {message}")
        return history.matching(states=states, **values)


class RetrySelection(Selection):
    """Query parameters that select ended runs."""

    state: list[Literal[State.SUCCESS, State.FAILURE]]


class RevokeSelection(Selection):
    """Query parameters that select unfinished runs."""

    state: list[Literal[State.PENDING, State.STARTED, State.RETRY]] = Field([], description="default: all three")


@router.post("/{task_id}/retry", status_code=HTTPStatus.ACCEPTED, responses=NOT_RETRIED)
async def retry_task(
    task_id: str,
    relay: CurrentRelay,
    changes: Changes | None = None,
) -> TaskRun:
    """Run an ended task again, with the same arguments or with changed ones; it keeps its id and earlier attempts."""
    run = await get_task(task_id)
    statement = history.retry(runs.c.id == task_id).returning(*runs.c)
    if changes and changes.arguments:
        statement = statement.values(arguments=_merge_arguments(run, changes.arguments))
    try:
        retried = await execute(statement)
    except IntegrityError:
        retried = []
    if not retried:
        reason = "was revoked (submit it again)" if run.state is State.REVOKED else f"has not ended: {run.state}"
        if run.state in RETRIABLE:
            reason = "has a key, of which another run is newer or unfinished"
        raise HTTPException(HTTPStatus.CONFLICT, f"task {task_id} {reason}")
    relay.wake()
    return TaskRun.model_validate(retried[0])


def _merge_arguments(run: TaskRun, changed: dict[str, JsonValue]) -> dict[str, Any]:
    if run.name not in REGISTRY:
        raise HTTPException(HTTPStatus.CONFLICT, f"task {run.name} is unknown, so its arguments cannot be checked")
    try:
        return REGISTRY[run.name].arguments.encode((), {**run.arguments, **changed})
    except ValidationError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, describe(error.errors())) from None
    except ValueError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


@router.post("/retry")
async def retry_tasks(relay: CurrentRelay, query: Annotated[RetrySelection, Query()]) -> Changed:
    """Run all ended tasks of a filter again."""
    conditions = (*query.matching(query.state), history.is_retriable())
    for _ in range(ATTEMPTS):
        with contextlib.suppress(IntegrityError):  # another transaction has enqueued a run with one of the keys
            return await _change(history.retry, relay, *conditions)
    raise HTTPException(HTTPStatus.CONFLICT, "other calls enqueue runs with the same keys (try again)")


@router.post("/revoke")
async def revoke_tasks(relay: CurrentRelay, query: Annotated[RevokeSelection, Query()]) -> Changed:
    """Revoke all unfinished runs of a filter."""
    return await _change(history.revoke, relay, *query.matching(query.state or UNFINISHED))


async def _change(
    statement: Callable[[ColumnElement[bool]], Update], relay: Relay, *conditions: ColumnElement[bool]
) -> Changed:
    changed = statement(history.first(LIMIT, *conditions)).returning(runs.c.id).cte()
    before = history.count(*conditions).scalar_subquery()  # all parts of a statement see the rows as they were before
    counts = (await execute(select(func.count().label("changed"), before.label("matching")).select_from(changed)))[0]
    relay.wake()
    return Changed(changed=counts.changed, remaining=counts.matching - counts.changed)
