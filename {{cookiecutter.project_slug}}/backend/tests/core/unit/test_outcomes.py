"""Outcomes of attempts that need no server."""

import asyncio
import sys
import threading
from typing import Any

import pytest
import structlog
from celery.exceptions import Reject, TimeLimitExceeded
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction, UndefinedTable
from pydantic import ValidationError
from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError

from app.core.database import is_unavailable
from app.core.tasks import base, loop
from app.core.tasks.attempt import Attempt, UndecidedError, deciding
from tests.core.tasks import core_add


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"x": 1}, True), ({"x": 1, "y": 2, "z": 3}, True), ({"x": 1, "y": "no number"}, False)],
)
def test_arguments_of_another_version_are_unknown_or_missing(arguments: dict[str, Any], *, expected: bool) -> None:
    with pytest.raises(ValidationError) as raised:
        core_add.arguments.parse((), arguments)
    assert core_add._is_of_another_version(raised.value) is expected


def test_message_is_requeued_when_the_next_task_was_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_add, "succeeded", "run-1")
    with pytest.raises(Reject) as raised:
        core_add.on_failure(OSError("broker"), "run-1", (), {}, None)
    reject: Any = raised.value
    assert reject.requeue
    core_add.on_failure(OSError("other run"), "run-2", (), {}, None)


def test_run_that_is_retried_in_the_same_process_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        message = "broken"
        raise OSError(message)

    task: Any = core_add
    monkeypatch.setattr(core_add, "succeeded", "run-1")
    monkeypatch.setattr(core_add, "_claim", fail)
    task.push_request(id="run-1", called_directly=False)
    try:
        with structlog.contextvars.bound_contextvars(task="", task_id=""), pytest.raises(OSError, match="broken"):
            task(x=1, y=1)
    finally:
        task.pop_request()
    core_add.on_failure(OSError(), "run-1", (), {}, None)


class Recorded(Attempt):
    """An attempt that keeps its end instead of writing it."""

    error = ""

    def fail(self, error: str, traceback: str | None = None) -> None:  # noqa: ARG002 (the signature of `Attempt`)
        self.error = error


def execute(raised: BaseException, monkeypatch: pytest.MonkeyPatch, ends: type[BaseException] = Exception) -> Recorded:
    """Execute an attempt whose function raises, and which `ends` with another exception; return the attempt."""

    def call(*_: object) -> None:
        raise raised

    monkeypatch.setattr(core_add, "call", call)
    attempt = Recorded("run-1", 0, "test")
    with pytest.raises(ends):
        core_add._execute(attempt, {})
    return attempt


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), MemoryError(), BaseExceptionGroup("", [SystemExit()])])
def test_failure_of_any_kind_is_recorded(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(raised).__name__ in execute(raised, monkeypatch).error


def test_exit_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(SystemExit(1), monkeypatch, ends=SystemExit).error == ""


def test_error_that_replaces_an_exit_ends_the_process_and_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        try:
            sys.exit(1)  # as SIGTERM does
        finally:
            raise OSError
    except OSError as cleanup:
        raised = cleanup
    assert execute(raised, monkeypatch, ends=SystemExit).error == ""


def test_exceeded_time_limit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Any] = []
    monkeypatch.setattr(base, "in_background", executed.append)
    core_add.on_failure(TimeLimitExceeded(3), "run-1", (), {}, None)
    assert executed[0].compile().params["error"] == "killed at its hard time limit of 3 s"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("", {}, Exception()), True),
        (InternalError("", {}, ReadOnlySqlTransaction()), True),
        (InternalError("", {}, IdleInTransactionSessionTimeout(), connection_invalidated=True), True),
        (ProgrammingError("", {}, UndefinedTable()), False),
        (ValueError(), False),
    ],
)
def test_unavailable_database_is_distinguished_from_an_invalid_statement(error: Exception, *, expected: bool) -> None:
    assert is_unavailable(error) is expected


def test_exit_of_an_async_task_leaves_the_loop_running() -> None:
    async def leave() -> None:
        sys.exit(1)

    async def respond() -> int:
        return 42

    with pytest.raises(RuntimeError, match="SystemExit"):
        loop.run(leave())
    assert loop.run(respond()) == 42


@pytest.mark.parametrize("at_once", [True, False])
def test_interrupted_end_of_an_async_task_is_undecided(monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
    """A soft time limit interrupts the wait while the end of the run is written, or before the task has started."""
    begun = threading.Event()

    class Interrupted(threading.Event):
        interrupted = False

        def wait(self, timeout: float | None = None) -> bool:
            if not self.interrupted:
                self.interrupted = True
                if not at_once:
                    begun.wait()
                message = "soft limit"
                raise TimeoutError(message)
            return super().wait(timeout)

    async def finish() -> None:
        with deciding(asyncio.CancelledError):
            begun.set()
            await asyncio.sleep(60)

    loop.run(asyncio.sleep(0))  # the loop exists
    monkeypatch.setattr(threading, "Event", Interrupted)
    with pytest.raises((TimeoutError, UndecidedError) if at_once else UndecidedError):  # the coroutine may have started
        loop.run(finish())
