"""A plain `async def` endpoint with `delay()`: faster than `plain_def`, and each request blocks the event loop.

Started as `plain_def`, with the same task and worker.
"""

from fastapi import FastAPI
from plain import add

app = FastAPI()


@app.post("/tasks/add")
async def add_numbers(x: float, y: float) -> dict[str, str]:
    """Send a task."""
    task = add.delay(x, y)
    return {"task_id": task.id}
