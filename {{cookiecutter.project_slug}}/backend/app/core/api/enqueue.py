"""`POST /tasks/<name>` of every task that has an endpoint, generated from its signature."""

import json
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID, uuid4, uuid5

import structlog
from fastapi import APIRouter, Body, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, create_model
from pydantic_core import PydanticUndefined

from app.core.api.inserts import insert
from app.core.api.problems import COMMON
from app.core.api.runs import TaskRun, execute
from app.core.api.transaction import CurrentRelay
from app.core.api.waiting import wait_for_end
from app.core.logs import origin
from app.core.tasks import history
from app.core.tasks.base import LONGEST_DELAY, LONGEST_KEY, RecordedTask
from app.core.tasks.relay import Relay

logger = structlog.get_logger(__name__)

type Task = RecordedTask[..., Any]
type Outcome = TaskRun | JSONResponse
Wait = Annotated[float, Field(ge=0, le=60.0, description="seconds to wait for the end of the run")]
Delay = Annotated[
    float, Field(ge=0, le=LONGEST_DELAY.total_seconds(), description="seconds until the run starts, at the earliest")
]
NAMESPACE = UUID("b1b0e3bb-6bb5-4ffd-b1f4-8a1dbbc7a9a9")  # of the ids of runs with an idempotency key


IdempotencyKey = Annotated[
    Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)] | None,
    Header(
        alias="Idempotency-Key",
        description="a repeated request, with the same key and arguments, gets the run of the first",
    ),
]
"""As in https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, but quotes are part of a key."""


class Options(BaseModel, extra="forbid"):
    """The query parameters of a task that takes its arguments as a body."""

    wait: Wait = 0
    delay: Delay = 0


class Accepted(BaseModel):
    """The run is stored, and will be executed."""

    task_id: str


def router(tasks: Iterable[Task]) -> APIRouter:
    """Return the endpoints of tasks: arguments are query parameters, or a JSON body if a query cannot express them."""
    made = APIRouter(prefix="/tasks", tags=["tasks"], responses=COMMON)
    for task in tasks:
        if task.has_endpoint:
            made.add_api_route(
                f"/{task.name}",
                _with_query(task) if task.arguments.fit_query() else _with_body(task),
                methods=["POST"],
                name=f"enqueue_{task.name}",
                description=task.__doc__,
                response_model=TaskRun | Accepted,
                responses={
                    HTTPStatus.OK: {"model": TaskRun, "description": "The run has ended within `wait` seconds"},
                    HTTPStatus.ACCEPTED: {"model": Accepted, "description": "The run is stored, and will be executed"},
                },
            )
    return made


def _with_query(task: Task) -> Callable[..., Coroutine[Any, Any, Outcome]]:
    query: Any = create_model(f"{task.name}_query", __base__=task.arguments, wait=(Wait, 0), delay=(Delay, 0))

    async def enqueue(
        request: Request, relay: CurrentRelay, values: Annotated[query, Query()], key: IdempotencyKey = None
    ) -> Outcome:
        if await request.body():  # it would be ignored
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "body: the arguments are query parameters")
        return await _enqueue(task, values, request, relay, key)

    return enqueue


def _with_body(task: Task) -> Callable[..., Coroutine[Any, Any, Outcome]]:
    body: Any = task.arguments
    # A body of optional arguments may be absent.
    default = PydanticUndefined if any(each.is_required() for each in body.model_fields.values()) else body()

    async def enqueue(
        request: Request,
        relay: CurrentRelay,
        values: Annotated[body, Body()] = default,
        *,
        options: Annotated[Options, Query()],
        key: IdempotencyKey = None,
    ) -> Outcome:
        return await _enqueue(task, values, request, relay, key, wait=options.wait, delay=options.delay)

    return enqueue


async def _enqueue(
    task: Task, values: Any, request: Request, relay: Relay, key: str | None, *, wait: float = 0, delay: float = 0
) -> Outcome:
    try:
        arguments = values.dump()
    except ValueError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    wait, delay = arguments.pop("wait", wait), arguments.pop("delay", delay)
    run_id = str(uuid4() if key is None else uuid5(NAMESPACE, f"{origin()['api_key'] or ''}\n{task.name}\n{key}"))
    run = {"id": run_id, "name": task.name, "queue": task.queue_name, "arguments": arguments}
    await (insert if key is None else _insert_once)(**run, delay=timedelta(seconds=delay))
    logger.info("task enqueued", task=task.name, task_id=run_id)
    relay.wake()
    if wait and (ended := await wait_for_end(request, run_id, wait)):
        return ended
    return JSONResponse({"task_id": run_id}, HTTPStatus.ACCEPTED, {"Location": f"/tasks/{run_id}"})


async def _insert_once(**run: Any) -> None:
    """Insert a run, unless it exists; respond with 422 if it was inserted with other arguments."""
    fingerprint = sha256(json.dumps(run["arguments"], sort_keys=True).encode()).hexdigest()
    if await execute(history.enqueue(**run, **origin(), fingerprint=fingerprint)):
        return
    found = await execute(history.find(run["id"]))
    if found and found[0].fingerprint != fingerprint:
        message = "Idempotency-Key: an earlier request with this key had other arguments (use a new key)"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, message)
