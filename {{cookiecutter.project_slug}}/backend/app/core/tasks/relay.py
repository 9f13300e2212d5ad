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
from datetime import timedelta
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.exceptions import DeliveryError
from celery.events import Event, event_exchange
from celery.utils.nodenames import anon_nodename
from kombu.serialization import dumps
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from app.core.celery import celery_app
from app.core.database import async_engine
from app.core.settings import settings
from app.core.tasks import history, queues
from app.core.tasks.history import OutboxAction, State
from app.core.tasks.registry import REGISTRY

logger = structlog.get_logger(__name__)

BATCH = 100
TIMEOUT = 5.0  # seconds that the broker has to answer, or to confirm a batch
IDLE = 1.0  # seconds between polls; the API wakes the relay of its own process at once
RECONNECT = 1.0  # seconds between connection attempts
RECOVERY_INTERVAL = 10.0  # seconds between searches for lost messages
POSTPONED = timedelta(seconds=30)  # until a refused message is tried again
LOST_AFTER = timedelta(seconds=30)  # doubled with each publication
PUBLISH_LIMIT = 8  # publications after which a run is given up: about two hours


class Relay:
    """The relay of one API process."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._connection: AbstractConnection | None = None

    def wake(self) -> None:
        """Publish now, not at the next poll."""
        self._wake.set()

    async def consumers(self) -> dict[str, int]:
        """Return the number of consumers of each queue.

        Raises:
            ConnectionError: there is no connection to the broker.
            aio_pika.exceptions.AMQPError: the broker refuses.
        """
        if self._connection is None or self._connection.is_closed:
            message = "no connection to the broker"
            raise ConnectionError(message)
        async with self._connection.channel() as channel:  # its own: a timeout of the caller closes it
            declared = [await _declare(channel, name) for name in queues.names()]
        return {queue.name: queue.declaration_result.consumer_count or 0 for queue in declared}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the relay in the background of a block."""
        task = asyncio.create_task(self._run(), name="relay")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
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
                    self._connection = connection
                    logger.info("relay connected")
                    await self._serve(channel, exchange, events)
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows wait and the relay reconnects)
                logger.warning("relay reconnects", error=f"{type(error).__name__}: {error}")
            finally:
                self._connection = None
            await asyncio.sleep(RECONNECT)

    async def _serve(self, channel: AbstractChannel, exchange: AbstractExchange, events: AbstractExchange) -> None:
        loop = asyncio.get_running_loop()
        next_recovery = loop.time() + RECOVERY_INTERVAL
        while True:
            self._wake.clear()
            try:
                while await self._publish_batch(exchange, events) == BATCH:
                    pass
                if loop.time() >= next_recovery:
                    await self._recover(channel)
                    next_recovery = loop.time() + RECOVERY_INTERVAL
            except SQLAlchemyError as error:
                logger.warning("relay waits for PostgreSQL", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE)

    async def _publish_batch(self, exchange: AbstractExchange, events: AbstractExchange) -> int:
        """Publish the oldest due rows, at most a batch; returns their number."""
        async with async_engine().begin() as connection:
            rows = (await connection.execute(history.pending_messages(BATCH))).all()
            if not rows:
                return 0
            enqueued = [row for row in rows if row.outbox_action is OutboxAction.PUBLISH]
            revoked = [row.id for row in rows if row.outbox_action is OutboxAction.REVOKE]
            async with asyncio.timeout(TIMEOUT):
                accepted = await asyncio.gather(*(_publish(exchange, row) for row in enqueued))
                if revoked:
                    await asyncio.to_thread(celery_app.control.revoke, revoked, terminate=True)
            outcomes = list(zip(enqueued, accepted, strict=True))
            confirmed = [row for row, is_accepted in outcomes if is_accepted]
            refused = [row for row, is_accepted in outcomes if not is_accepted]
            if confirmed or revoked:
                await connection.execute(history.published([row.id for row in confirmed] + revoked))
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
            if queue.declaration_result.message_count:
                continue
            statement = history.requeue_lost(name, LOST_AFTER, PUBLISH_LIMIT, longest_attempt())
            async with async_engine().begin() as connection:
                found = (await connection.execute(statement)).all()
            for row in found:
                outcome = "given up" if row.state is State.FAILURE else "published again"
                logger.warning("lost message detected", task_id=row.id, outcome=outcome)


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


async def _publish(exchange: AbstractExchange, row: Row[Any]) -> bool:
    """Publish a run; return whether the broker accepted its message."""
    try:
        await exchange.publish(message(row), row.queue, mandatory=True)
    except DeliveryError:
        return False
    return True


def longest_attempt() -> timedelta:
    """Return how long an attempt of any task may run."""
    limits = (task.time_limit or celery_app.conf.task_time_limit for task in REGISTRY.values())
    return timedelta(seconds=max(limits, default=celery_app.conf.task_time_limit))


def message(row: Row[Any]) -> aio_pika.Message:
    """Return the message that Celery itself would send for a run, without a reply address: no process waits for one."""
    made = celery_app.amqp.create_task_message(row.id, row.name, kwargs=row.arguments, retries=row.retries)
    content_type, content_encoding, body = dumps(made.body, serializer="json")
    return aio_pika.Message(
        body.encode(),
        headers=made.headers,
        content_type=content_type,
        content_encoding=content_encoding,
        correlation_id=row.id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def sent_events(rows: Sequence[Row[Any]]) -> aio_pika.Message:
    """Return Celery's task-sent events for these runs: Flower shows them as PENDING."""
    app: Any = celery_app
    events = []
    for row in rows:
        made = celery_app.amqp.create_task_message(
            row.id, row.name, kwargs=row.arguments, retries=row.retries, create_sent_event=True
        )
        events.append(
            Event(
                "task-sent",
                hostname=anon_nodename(),
                utcoffset=0,
                pid=os.getpid(),
                clock=app.clock.forward(),
                queue=row.queue,
                exchange=queues.EXCHANGE,
                routing_key=row.queue,
                **made.sent_event,
            )
        )
    return aio_pika.Message(
        json.dumps(events).encode(),
        headers={"hostname": anon_nodename()},
        content_type="application/json",
        content_encoding="utf-8",
    )
