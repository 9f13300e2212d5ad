"""A plain `def` endpoint with `delay()`: FastAPI runs it in a thread pool, a message is sent, and no row is written.

Started with `uvicorn plain_def:app`: one process, access log on. uvicorn uses uvloop and httptools if they are
installed, so the references use them exactly when the project does.
"""

from fastapi import FastAPI
from plain import add

app = FastAPI()


@app.post("/tasks/add")
def add_numbers(x: float, y: float) -> dict[str, str]:
    """Send a task."""
    task = add.delay(x, y)
    return {"task_id": task.id}
