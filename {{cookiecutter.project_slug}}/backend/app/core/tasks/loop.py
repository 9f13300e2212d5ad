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
    `CancelledError` where it awaits, and may raise another exception instead.
    """
    ended = threading.Event()
    raised: list[Exception] = []

    async def supervised() -> Any:
        try:
            return await coroutine
        except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and every later task
            message = f"the task raised {error!r}"
            raise RuntimeError(message) from error
        except Exception as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(supervised(), _loop())
    try:
        return future.result()
    except BaseException as interruption:
        if not future.done():
            future.cancel()
            is_error = isinstance(interruption, Exception)  # SystemExit ends the process
            ended.wait(None if is_error else EXIT_TIMEOUT)  # at most until the hard time limit kills the process
            if raised and is_error:
                raise raised[0] from None
        raise
