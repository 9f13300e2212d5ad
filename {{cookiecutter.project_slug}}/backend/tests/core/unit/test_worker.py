import os
import time
from pathlib import Path

import pytest
from celery.worker.consumer import consumer
from kombu import Connection

from app.core.celery import celery_app
from app.core.tasks import worker


class StoppedError(Exception):
    pass


def wait_for_broker() -> None:
    """Wait for a broker that does not exist, until Celery checks for a shutdown."""
    waiting = object.__new__(worker.QuorumConsumer)
    vars(waiting).update(app=celery_app, first_connection_attempt=False, broker_connection_retry_attempt=0)
    with pytest.raises(StoppedError):
        waiting.ensure_connected(Connection("amqp://127.0.0.1:1//"))


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def stop() -> None:
        raise StoppedError

    monkeypatch.setattr(consumer, "maybe_shutdown", stop)
    monkeypatch.setattr(worker, "FILE", tmp_path / "alive")
    return tmp_path / "alive"


def test_liveness_file_stays_recent_while_a_worker_waits_for_the_broker(file: Path) -> None:
    file.touch()
    os.utime(file, (time.time() - 60,) * 2)
    wait_for_broker()
    assert time.time() - file.stat().st_mtime < 30


def test_liveness_file_is_not_created_before_a_worker_consumes(file: Path) -> None:
    wait_for_broker()
    assert not file.exists()
