"""OpenTelemetry traces: one from the request through the relay and the broker to the statements of the task.

They are sent to `OTEL_EXPORTER_OTLP_ENDPOINT`. Without it nothing is recorded, and OpenTelemetry's SDK is not imported.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, override

from celery.exceptions import Ignore, Reject
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

IS_ON = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
QUERY = "url.query"
PATIENCE = 2.0  # seconds
SKIPPED = (Ignore, Reject)  # by Celery, which ends the message without a result
HEADER = "traceparent"  # https://www.w3.org/TR/trace-context/

_tracer = trace.get_tracer("app")


def configure(service: str) -> None:
    """Send the spans of this process from now on, under the name of a service; call it after a fork."""
    if not IS_ON:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (120 ms)
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415 (the same)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 (the same)

    os.environ.setdefault("OTEL_SERVICE_NAME", service)

    class WithoutQuery(SpanProcessor):
        """Removes the query of requests, which has the arguments of tasks."""

        @override
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            if QUERY in (getattr(span, "attributes", None) or {}):
                span.set_attribute(QUERY, "")

    provider = TracerProvider()
    provider.add_span_processor(WithoutQuery())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    event.listen(Engine, "before_cursor_execute", _start_statement, named=True)
    event.listen(Engine, "after_cursor_execute", _end_statement, named=True)
    event.listen(Engine, "handle_error", _fail_statement)


def shutdown() -> None:
    """Send the spans that are left; a collector that does not answer delays the end of the process by `PATIENCE`."""
    end = getattr(trace.get_tracer_provider(), "shutdown", None)
    if end:
        ending = threading.Thread(target=end, daemon=True)
        ending.start()
        ending.join(PATIENCE)


def current() -> str | None:
    """Return the current span as a `traceparent`; nothing without one."""
    carrier: dict[str, str] = {}
    if IS_ON:
        propagate.inject(carrier)
    return carrier.get(HEADER)


@contextlib.contextmanager
def span(name: str, kind: SpanKind, parent: str | None, **attributes: str) -> Iterator[dict[str, str]]:
    """Record a span, and yield its `traceparent` as headers."""
    if not IS_ON:
        yield {}
        return
    context = propagate.extract({HEADER: parent} if parent else {})
    options: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
    with _tracer.start_as_current_span(name, context, kind, attributes, **options) as started:
        try:
            yield {HEADER: current() or ""}
        except SKIPPED:
            raise
        except (Exception, asyncio.CancelledError) as error:
            started.record_exception(error)
            started.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def _start_statement(*, statement: str, context: Any, **_: Any) -> None:
    """Start the span of a statement that is executed within another span: polling makes none."""
    if trace.get_current_span().is_recording():
        attributes = {"db.system.name": "postgresql", "db.query.text": statement}  # without the parameters
        name = statement.split(maxsplit=1)[0]
        context.span = _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)


def _end_statement(*, context: Any, **_: Any) -> None:
    started: Span | None = getattr(context, "span", None)
    if started:
        started.end()


def _fail_statement(context: ExceptionContext) -> None:
    started: Span | None = getattr(context.execution_context, "span", None)
    if started:
        started.set_status(Status(StatusCode.ERROR, type(context.original_exception).__name__))
        started.end()
