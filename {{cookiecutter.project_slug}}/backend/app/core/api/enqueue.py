"""`POST /tasks/<name>` of every task that has an endpoint, generated from its signature."""

from collections.abc import Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, create_model
from pydantic_core import PydanticUndefined

from app.core.api.inserts import insert
from app.core.api.problems import COMMON
from app.core.api.runs import TaskRun
from app.core.api.transaction import CurrentRelay
from app.core.api.waiting import wait_for_end
from app.core.tasks.base import RecordedTask
from app.core.tasks.relay import Relay

type Task = RecordedTask[..., Any]
type Outcome = TaskRun | JSONResponse
Wait = Annotated[float, Field(ge=0, le=60.0, description="seconds to wait for the end of the run")]


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
    query: Any = create_model(f"{task.name}_query", __base__=task.arguments, wait=(Wait, 0))

    async def enqueue(request: Request, relay: CurrentRelay, values: Annotated[query, Query()]) -> Outcome:
        return await _enqueue(task, values, request, relay)

    return enqueue


def _with_body(task: Task) -> Callable[..., Coroutine[Any, Any, Outcome]]:
    body: Any = task.arguments
    required = any(field.is_required() for field in body.model_fields.values())
    default = PydanticUndefined if required else body()  # a body of optional arguments may be absent

    async def enqueue(
        request: Request,
        relay: CurrentRelay,
        values: Annotated[body, Body()] = default,
        wait: Annotated[Wait, Query()] = 0,
    ) -> Outcome:
        return await _enqueue(task, values, request, relay, wait=wait)

    return enqueue


async def _enqueue(task: Task, values: Any, request: Request, relay: Relay, *, wait: float = 0) -> Outcome:
    arguments = values.dump()
    wait = arguments.pop("wait", wait)
    run_id = str(uuid4())
    await insert(id=run_id, name=task.name, queue=task.queue_name, arguments=arguments)
    relay.wake()
    if wait and (run := await wait_for_end(request, run_id, wait)):
        return run
    return JSONResponse({"task_id": run_id}, HTTPStatus.ACCEPTED, {"Location": f"/tasks/{run_id}"})
