import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app import trace
from celery.apps import worker as celery_worker
from celery.worker.consumer import consumer
from pydantic import ValidationError

from app.core import logs
from app.core.settings import settings
from tests.core.tasks import core_add

SECRET = "an-argument"


@pytest.fixture(params=["json", "console"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(settings(), "log_format", request.param)
    logs.configure()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_warning_is_a_line_of_the_same_form(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest captures warnings and standard error itself, and again in each phase of a test."""
    monkeypatch.setattr("sys.stderr", output)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logs.configure()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "py.warnings" in output.getvalue()
    assert "DeprecationWarning: old" in output.getvalue()


@pytest.mark.usefixtures("output")
def test_message_of_a_signal_handler_is_a_line_of_the_same_form(capfd: pytest.CaptureFixture[str]) -> None:
    vars(celery_worker)["safe_say"]("worker: Cold shutdown (MainProcess)", sys.__stdout__)
    printed = capfd.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    if settings().log_format == "json":
        assert json.loads(line)["event"] == "worker: Cold shutdown (MainProcess)"
    else:
        assert "worker: Cold shutdown (MainProcess)" in line


class Message:
    """A message with a secret in its body and its headers."""

    body = json.dumps([[], {"text": SECRET}, {}])
    content_type, content_encoding = "application/json", "utf-8"
    properties: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    delivery_info: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, **headers: Any) -> None:
        self.headers = {"kwargsrepr": SECRET, **headers}

    def reject_log_error(self, *_: Any) -> None:
        """Do nothing."""


def receive(message: Message, problem: str) -> None:
    """Report a message with Celery's own code."""
    backend = SimpleNamespace(mark_as_failure=lambda *_, **__: None)
    worker: Any = object.__new__(consumer.Consumer)
    vars(worker).update(app=SimpleNamespace(backend=backend), event_dispatcher=None, connection_errors=())
    getattr(worker, problem)(None, message, *([] if problem == "on_unknown_message" else [KeyError()]))


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ("on_unknown_task", "message rejected, see the dead-letter queue"),
        ("on_invalid_task", "invalid message rejected, see the dead-letter queue"),
        ("on_unknown_message", "unknown message rejected, see the dead-letter queue"),
    ],
)
def test_rejected_messages_are_logged_without_their_arguments(output: io.StringIO, problem: str, text: str) -> None:
    receive(Message(id="id", task="nonesuch"), problem)
    assert text in output.getvalue()
    assert SECRET not in output.getvalue()


def test_success_is_logged_without_its_result(output: io.StringIO) -> None:
    context = {"id": "id", "name": "add", "return_value": SECRET, "runtime": 0.5, "args": SECRET, "kwargs": SECRET}
    trace.info(trace.LOG_SUCCESS, context)
    trace.info(trace.LOG_RECEIVED, context)
    assert "Task add[id] succeeded in 0.5s" in output.getvalue()
    assert "Task add[id] received" in output.getvalue()
    assert SECRET not in output.getvalue()


def test_tracebacks_are_logged_without_variables(output: io.StringIO) -> None:
    argument = {"text": SECRET}
    try:
        _ = argument["times"]
    except KeyError:
        logging.getLogger("test").exception("failed")
    assert "Traceback" in output.getvalue()
    assert SECRET not in output.getvalue()


def test_invalid_arguments_are_reported_without_their_values() -> None:
    with pytest.raises(ValidationError, match="number") as raised:
        core_add.arguments.parse((), {"x": SECRET, "y": 1})
    assert SECRET not in str(raised.value)
