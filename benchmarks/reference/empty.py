"""An endpoint that does nothing, without an access log: the upper bound of FastAPI with one process."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def empty() -> dict[str, str]:
    """Return a constant."""
    return {"status": "ok"}
