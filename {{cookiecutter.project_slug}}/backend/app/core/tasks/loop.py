"""The event loop of a worker process, on which all of its `async def` tasks run."""

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any

EXIT_TIMEOUT = 10.0  # seconds that a cancelled task has before the process exits


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, which runs in its own thread.

    Celery raises the soft time limit in the main thread; a loop that ran there would be left in an undefined state.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async-tasks", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, and return its result.

    If an exception interrupts the wait (Celery's soft time limit), the coroutine is cancelled: it gets a
    `CancelledError` where it awaits, and may still return, or raise another exception.
    """
    tasks: list[asyncio.Task[Any]] = []
    ended = threading.Event()

    def start() -> None:
        tasks.append(_loop().create_task(_without_exit(coroutine)))
        tasks[0].add_done_callback(lambda _: ended.set())

    _loop().call_soon_threadsafe(start)
    try:
        ended.wait()
    except BaseException as interruption:
        _loop().call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 (it may not be there yet)
        if not isinstance(interruption, Exception):  # SystemExit
            ended.wait(EXIT_TIMEOUT)
            raise
        ended.wait()  # at most until the hard time limit kills the process
        if tasks[0].cancelled():
            coroutine.close()  # if it has not started
            raise
    return tasks[0].result()


async def _without_exit(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine; an exit that it raises would end the loop, and with it every later task."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        message = f"the task raised {error!r}"
    raise RuntimeError(message)  # not while the exit is handled: its context would end the process
