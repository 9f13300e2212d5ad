"""Errors as problem details (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from app.core.database import is_unavailable
from app.core.tasks.arguments import describe

logger = structlog.get_logger(__name__)


class Problem(BaseModel):
    """Problem details: `title` is the same for every problem of a status, `detail` describes this one."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the problems with these statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


COMMON = responses(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the response with problem details."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, headers, media_type="application/problem+json")


async def _http_error(_request: Request, error: Any) -> JSONResponse:
    return problem_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _validation_error(_request: Request, error: Any) -> JSONResponse:
    faults = ({**fault, "loc": fault["loc"][1:] or ("body",)} for fault in error.errors())  # without query, path ...
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, describe(faults))


async def _data_error(_request: Request, error: Exception) -> JSONResponse:
    logger.info("value rejected by PostgreSQL", error=type(getattr(error, "orig", error)).__name__)
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "PostgreSQL cannot store one of these values")


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, InternalError) and not is_unavailable(error):
        raise error
    logger.warning("PostgreSQL is unavailable", error=str(error))
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "the database is unavailable", {"Retry-After": "5"})


def install(app: FastAPI) -> None:
    """Answer every error of the application with problem details, and describe it once in the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(DataError, _data_error)
    for error in (OperationalError, InterfaceError, InternalError, PoolTimeoutError):
        app.add_exception_handler(error, _unavailable)
