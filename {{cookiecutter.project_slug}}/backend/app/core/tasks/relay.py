"""Outbox relay: publishes enqueued runs and requeues lost ones.

Requests and tasks only insert rows. A relay in each API process selects the rows to publish, and marks them once the
broker has confirmed; processes share the work by skipping each other's locked rows. A relay that dies between
confirmation and mark publishes again, and the worker ignores the second message.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.exceptions import DeliveryError
from celery.events import Event, event_exchange
from celery.utils.nodenames import anon_nodename
from opentelemetry.trace import SpanKind
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from app.core import tracing
from app.core.celery import celery_app
from app.core.database import relay_engine
from app.core.settings import settings
from app.core.tasks import history, queues
from app.core.tasks.background import background
from app.core.tasks.history import ENQUEUED_HEADER, PARKED_HEADER, OutboxAction, State

logger = structlog.get_logger(__name__)

app: Any = celery_app
CONTROL = app.control.mailbox.exchange
BATCH = 100
BATCH_SIZE = 8 * 1024**2  # bytes of arguments in a batch, or one row
TIMEOUT = 5.0  # seconds to answer or confirm a batch, plus 1 s per MB, but less than the transaction may wait (15 s)
IDLE = 1.0  # seconds between polls; the API wakes the relay of its own process at once
RECONNECT = 1.0  # seconds between connection attempts
RECOVERY_INTERVAL = 10.0  # seconds between searches for lost messages
POSTPONED = timedelta(seconds=30)  # until a refused message is tried again
LOST_AFTER = timedelta(seconds=30)  # behind what the queue delivers; doubled with each publication
LOST_BATCH = 1000  # lost messages that one search requeues
RELEASE_BATCH = 10_000  # runs of a resumed queue
PUBLISH_LIMIT = 8  # publications after which a run is given up: about two hours
MESSAGE_LIMIT = 16 * 1024**2  # bytes; RabbitMQ's default `max_message_size`


class Relay:
    """The relay of one API process."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._connection: AbstractConnection | None = None

    def wake(self) -> None:
        """Publish now, not at the next poll."""
        self._wake.set()

    async def consumers(self) -> dict[str, int]:
        """Return the number of consumers of each queue; raises `ConnectionError` or `AMQPError` without the broker."""
        if self._connection is None or self._connection.is_closed:
            message = "no connection to the broker"
            raise ConnectionError(message)
        async with self._connection.channel() as channel:  # its own: a timeout of the caller closes it
            declared = [await _declare(channel, name) for name in queues.names()]
        return {queue.name: queue.declaration_result.consumer_count or 0 for queue in declared}

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run the relay in the background of a block."""
        return background(self._run(), "relay")

    async def _run(self) -> None:
        log, reported = logger.info, ""  # at first the broker may still be starting
        while True:
            try:
                async with _connected() as connection:
                    async with asyncio.timeout(TIMEOUT):
                        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                        exchange = await channel.declare_exchange(queues.EXCHANGE, "topic", durable=True)
                        for name in queues.names():
                            await (await _declare(channel, name)).bind(exchange, name)
                        unconfirmed = await connection.channel(publisher_confirms=False)
                        events = await unconfirmed.declare_exchange(event_exchange.name, "topic", durable=True)
                        control = await unconfirmed.declare_exchange(
                            CONTROL.name, CONTROL.type, durable=CONTROL.durable
                        )
                    self._connection = connection
                    logger.info("relay connected")
                    log, reported = logger.warning, ""
                    await self._serve(channel, exchange, events, control)
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows wait and the relay reconnects)
                if (problem := f"{type(error).__name__}: {error}") != reported:
                    log("relay waits for the broker", error=problem)
                reported = problem
            finally:
                self._connection = None
            await asyncio.sleep(RECONNECT)

    async def _serve(self, channel: AbstractChannel, *exchanges: AbstractExchange) -> None:
        loop = asyncio.get_running_loop()
        next_recovery = loop.time() + RECOVERY_INTERVAL
        held, more = False, 0
        while True:
            self._wake.clear()
            try:
                while (more := await self._publish_batch(*exchanges)) and loop.time() < next_recovery:
                    pass
                if held or loop.time() >= next_recovery:
                    held = await self._release()
                if loop.time() >= next_recovery:
                    await self._recover(channel)
                    next_recovery = loop.time() + RECOVERY_INTERVAL
            except SQLAlchemyError as error:
                held, more = False, 0
                logger.warning("relay waits for PostgreSQL", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0 if held or more else IDLE)

    async def _release(self) -> bool:
        """Publish held runs of resumed queues, at most a batch; return whether others may be left."""
        async with relay_engine().begin() as connection:
            return len((await connection.execute(history.release(RELEASE_BATCH))).all()) == RELEASE_BATCH

    async def _publish_batch(
        self, exchange: AbstractExchange, events: AbstractExchange, control: AbstractExchange
    ) -> int:
        """Publish the oldest due rows, at most a batch; returns their number."""
        async with relay_engine().begin() as connection:
            rows = (await connection.execute(history.pending_messages(BATCH, BATCH_SIZE))).all()
            if not rows:
                return 0
            enqueued = [row for row in rows if row.outbox_action is OutboxAction.PUBLISH and not row.is_paused]
            held = [row.id for row in rows if row.outbox_action is OutboxAction.PUBLISH and row.is_paused]
            revoked = [row.id for row in rows if row.outbox_action is OutboxAction.REVOKE]
            async with asyncio.timeout(min(TIMEOUT + sum(row.length for row in rows) / 1e6, 14)):
                errors = await asyncio.gather(*(_publish(exchange, row) for row in enqueued))
                if revoked:
                    await control.publish(revocation(revoked), "")
            outcomes = list(zip(enqueued, errors, strict=True))
            confirmed = [row for row, error in outcomes if error is None]
            refused = [row for row, error in outcomes if isinstance(error, DeliveryError)]
            for row, error in outcomes:
                if error is not None and row not in refused:
                    await connection.execute(history.finish_externally(row.id, State.FAILURE, str(error)))
            if confirmed or revoked:
                await connection.execute(history.published([row.id for row in confirmed] + revoked))
            if held:
                await connection.execute(history.hold(held))
            if refused:
                await connection.execute(history.postpone([row.id for row in refused], POSTPONED))
                logger.warning("messages refused", count=len(refused), queues=sorted({row.queue for row in refused}))
        if confirmed:
            async with asyncio.timeout(TIMEOUT):
                await events.publish(sent_events(confirmed), "task.multi")
        return len(rows)

    async def _recover(self, channel: AbstractChannel) -> None:
        for name in queues.names():
            async with asyncio.timeout(TIMEOUT):
                queue = await _declare(channel, name)
            empty = not queue.declaration_result.message_count
            statement = history.requeue_lost(
                name, empty=empty, waited=LOST_AFTER, publish_limit=PUBLISH_LIMIT, limit=LOST_BATCH
            )
            async with relay_engine().begin() as connection:
                lost = (await connection.execute(statement)).all()
            for row in lost:
                outcome = "given up" if row.state is State.FAILURE else "published again"
                logger.warning("lost message detected", task_id=row.id, outcome=outcome)
        async with relay_engine().begin() as connection:
            await connection.execute(history.terminate_overdue())
            overdue = (await connection.execute(history.requeue_overdue())).all()
        for row in overdue:
            logger.warning("run requeued: past its deadline", task_id=row.id)


@contextlib.asynccontextmanager
async def _connected() -> AsyncIterator[AbstractConnection]:
    """Connect to the broker; an unresponsive broker delays neither the start nor the end of the block."""
    connection = await aio_pika.connect(settings().broker_url, timeout=TIMEOUT)
    try:
        yield connection
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await connection.close()


async def _declare(channel: AbstractChannel, name: str) -> AbstractQueue:
    return await channel.declare_queue(name, durable=True, arguments=dict(queues.ARGUMENTS))


async def _publish(exchange: AbstractExchange, row: Row[Any]) -> Exception | None:
    """Publish a run; return a `DeliveryError` if the broker refuses the message, any other error if there is none."""
    try:
        made = message(row)
    except Exception as error:  # noqa: BLE001 (one row must not hold up the others)
        return error
    attributes = {"messaging.destination.name": row.queue, "messaging.message.id": row.id}
    try:
        with tracing.span(f"publish {row.queue}", SpanKind.PRODUCER, row.traceparent, **attributes) as headers:
            made.headers.update(headers)
            await exchange.publish(made, row.queue, mandatory=True)
    except DeliveryError as error:
        return error
    return None


def message(row: Row[Any]) -> aio_pika.Message:
    """Return the message that Celery itself would send for a run.

    It has no reply address, unless an earlier message of the run had one: no process waits for a reply.

    Raises:
        ValueError: the message is larger than the broker accepts.
    """
    kept = row.message or {}
    made = _celery_message(row, **kept)
    parked = {PARKED_HEADER: True} if row.state is State.STARTED else {}
    ours = _json_message(
        made.body,
        {**made.headers, **parked, ENQUEUED_HEADER: True},
        correlation_id=row.id,
        reply_to=kept.get("reply_to"),
        priority=kept.get("priority"),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    if (size := ours.body_size) > MESSAGE_LIMIT:
        problem = f"arguments: {size} bytes (store large data elsewhere; a message has up to {MESSAGE_LIMIT})"
        raise ValueError(problem)
    return ours


def revocation(run_ids: Sequence[str]) -> aio_pika.Message:
    """Return the control message that `celery_app.control.revoke` broadcasts to terminate runs."""
    arguments = {"task_id": run_ids, "terminate": True}
    command = {"method": "revoke", "arguments": arguments, "destination": None, "pattern": None, "matcher": None}
    return _json_message(command, {"clock": app.clock.forward(), "expires": 0})


def sent_events(rows: Sequence[Row[Any]]) -> aio_pika.Message:
    """Return Celery's task-sent events for these runs: Flower shows them as PENDING."""
    sender = anon_nodename()
    events = [
        Event(
            "task-sent",
            hostname=sender,
            utcoffset=0,
            pid=os.getpid(),
            clock=app.clock.forward(),
            queue=row.queue,
            exchange=queues.EXCHANGE,
            routing_key=row.queue,
            attempts=row.attempts,
            **_celery_message(row, create_sent_event=True).sent_event,
        )
        for row in rows
    ]
    return _json_message(events, {"hostname": sender})


def _celery_message(row: Row[Any], **options: Any) -> Any:
    return app.amqp.create_task_message(row.id, row.name, kwargs=row.arguments, retries=row.retries, **options)


def _json_message(body: Any, headers: dict[str, Any], **properties: Any) -> aio_pika.Message:
    properties |= {"content_type": "application/json", "content_encoding": "utf-8"}
    return aio_pika.Message(json.dumps(body).encode(), headers=headers, **properties)
