"""The relay: tells the broker what the API has accepted, and brings back what fell by the wayside.

The API writes rows and never waits for the broker. A relay runs in each API process, takes the rows that wait to be
published, and marks them once the broker has confirmed. Processes share the work by skipping each other's locked rows.
A relay that dies between confirmation and mark publishes again, and the worker refuses the second message.
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
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from celery.events import Event, event_exchange
from celery.utils.nodenames import anon_nodename
from kombu.serialization import dumps
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from app import history
from app.celery_app import QUEUE, celery_app
from app.database import async_engine
from app.history import Publication, State
from app.settings import settings
from app.tasks import REGISTRY

logger = structlog.get_logger(__name__)

BATCH = 100
TIMEOUT = 5.0  # seconds the broker may take to answer, or to confirm a batch
IDLE = 1.0  # seconds until the relay looks by itself; the API wakes its own at once
RECONNECT = 1.0  # seconds between attempts to reach the broker
RECOVERY_INTERVAL = 10.0  # seconds between looks for lost messages
LOST_AFTER = timedelta(seconds=30)  # doubled with each publication
PUBLICATIONS = 8  # after that many the run is given up: about two hours


class Relay:
    """The relay of one API process."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._connection: AbstractConnection | None = None

    def wake(self) -> None:
        """Say that there is something to publish."""
        self._wake.set()

    async def ping(self) -> None:
        """Ask the broker for an answer.

        Raises:
            ConnectionError: there is no connection to the broker.
            aio_pika.exceptions.AMQPError: the broker refuses.
        """
        if self._connection is None or self._connection.is_closed:
            message = "no connection to the broker"
            raise ConnectionError(message)
        async with self._connection.channel() as channel:  # one of its own: a question that is given up closes it
            await channel.declare_queue(QUEUE, passive=True)

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
                async with connected() as connection:
                    async with asyncio.timeout(TIMEOUT):
                        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                        exchange = await channel.get_exchange(QUEUE)
                        unconfirmed = await connection.channel(publisher_confirms=False)
                        events = await unconfirmed.declare_exchange(event_exchange.name, "topic", durable=True)
                    self._connection = connection
                    logger.info("the relay is connected")
                    await self._serve(channel, exchange, events)
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows wait and the relay tries again)
                logger.warning("the relay tries again", error=f"{type(error).__name__}: {error}")
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
                logger.warning("the relay waits for PostgreSQL", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE)

    async def _publish_batch(self, exchange: AbstractExchange, events: AbstractExchange) -> int:
        """Publish what waits, oldest first, at most a batch; returns how many runs that were."""
        async with async_engine().begin() as connection:
            rows = (await connection.execute(history.to_publish(BATCH))).all()
            if not rows:
                return 0
            async with asyncio.timeout(TIMEOUT):
                accepted = [row for row in rows if row.to_publish is Publication.RUN]
                await asyncio.gather(*(exchange.publish(message(row), QUEUE, mandatory=True) for row in accepted))
                revoked = [row.id for row in rows if row.to_publish is Publication.REVOCATION]
                if revoked:
                    await asyncio.to_thread(celery_app.control.revoke, revoked, terminate=True)
            await connection.execute(history.published([row.id for row in rows]))
        if accepted:
            async with asyncio.timeout(TIMEOUT):
                await events.publish(sent_events(accepted), "task.multi")
        return len(rows)

    async def _recover(self, channel: AbstractChannel) -> None:
        async with asyncio.timeout(TIMEOUT):
            queue = await channel.declare_queue(QUEUE, passive=True)
        if queue.declaration_result.message_count:
            return
        async with async_engine().begin() as connection:
            found = (await connection.execute(history.bring_back(LOST_AFTER, PUBLICATIONS, longest_attempt()))).all()
        for row in found:
            outcome = "given up" if row.state is State.FAILURE else "published again"
            logger.warning("a run seems to have lost its message", task_id=row.id, outcome=outcome)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[AbstractConnection]:
    """A connection to the broker. A broker that does not answer holds up neither end of it."""
    connection = await aio_pika.connect(settings().broker_url, timeout=TIMEOUT)
    try:
        yield connection
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await connection.close()


def longest_attempt() -> timedelta:
    """How long an attempt of any task may be at work."""
    limits = (task.time_limit or celery_app.conf.task_time_limit for task in REGISTRY.values())
    return timedelta(seconds=max(limits))


def message(row: Row[Any]) -> aio_pika.Message:
    """The message that Celery itself would send for a run, but without an address for the reply: nobody waits here."""
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
    """The events by which Celery itself would tell that these runs were sent: Flower shows them as PENDING."""
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
                queue=QUEUE,
                exchange=QUEUE,
                routing_key=QUEUE,
                **made.sent_event,
            )
        )
    return aio_pika.Message(
        json.dumps(events).encode(),
        headers={"hostname": anon_nodename()},
        content_type="application/json",
        content_encoding="utf-8",
    )
