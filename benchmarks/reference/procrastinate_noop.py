"""Procrastinate: `python procrastinate_noop.py 5000` enqueues no-op jobs between two that record the time.

One process that executes two jobs at a time. Jobs keep their rows and events in PostgreSQL; Procrastinate stores no
results. The tasks are coroutines, as its worker is asynchronous.
"""

import os
import sys

import marks
import procrastinate

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=f"postgresql://{os.environ['DATABASE']}"))


@app.task(name="mark")
async def mark() -> None:
    """Record the current time."""
    marks.mark()


@app.task(name="noop")
async def noop() -> float:
    """Return a number."""
    return 3.0


if __name__ == "__main__":
    with app.open():
        mark.defer()
        noop.batch_defer(*({} for _ in range(int(sys.argv[1]))))
        mark.defer()
