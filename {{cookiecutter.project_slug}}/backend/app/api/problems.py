"""Errors as problem documents (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

logger = structlog.get_logger(__name__)

UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError, TimeoutError)
"""What tells that the database does not answer."""


class Problem(BaseModel):
    """A problem document: `title` is the same for each problem of a kind, `detail` says what happened this time."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the problems that a call may answer with."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer that carries a problem."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, headers, media_type="application/problem+json")


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for nothing else)
    return answer(error.status_code, error.detail, dict(error.headers or {}))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for nothing else)
    faults = (f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors())
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(faults))


async def _unkeepable(_request: Request, error: Exception) -> JSONResponse:
    logger.info("refused by PostgreSQL", error=str(error))
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "PostgreSQL cannot keep one of these values")


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    logger.warning("no answer from PostgreSQL", error=str(error))
    return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer", {"Retry-After": "5"})


async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the service itself; its log has the traceback")


def install(app: FastAPI) -> None:
    """Let every error of the application be a problem document."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DataError, _unkeepable)
    for error in UNAVAILABLE:
        app.add_exception_handler(error, _unavailable)
    app.add_exception_handler(Exception, _unexpected)
