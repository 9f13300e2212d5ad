"""A worker that executes the core tests' tasks, in a process of the test container."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue
from sqlalchemy.orm import Session

from app.core.tasks.worker import FILE
from tests.core.tasks import QUEUE, celery_app

LOG = Path("/tmp/core-tests.log")
COMMAND = ["celery", "--app=tests.core.tasks", "--quiet", "worker", "--hostname=core-tests@%h", "--concurrency=2"]


@pytest.fixture(scope="package", autouse=True)
def worker() -> Iterator[None]:
    with LOG.open("w") as log:
        env = {**os.environ, "WORKER_QUEUES": QUEUE, "LOG_FORMAT": "json"}
        process = subprocess.Popen(COMMAND, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not FILE.exists():
            assert process.poll() is None, LOG.read_text()
            assert time.monotonic() < deadline, LOG.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not stop:\n{LOG.read_text()[-10_000:]}")
        finally:
            process.kill()
            process.wait()
            with celery_app.connection_for_write() as connection:
                Queue(QUEUE, channel=connection.default_channel).delete()  # else it would remain, without a consumer


@pytest.fixture
def enqueue(session: Session) -> Callable[[Any], str]:
    """Return a function that executes a statement of `enqueue` in a transaction and returns the id of the run."""

    def committed(statement: Any) -> str:
        run_id: str = session.execute(statement).scalar_one()
        session.commit()
        return run_id

    return committed
