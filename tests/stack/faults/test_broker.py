"""Faults of RabbitMQ."""

from typing import Any
from uuid import uuid4

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load


def is_relay_connected(stack: Stack) -> bool:
    """Return whether the readiness probe reports the connection to the broker."""
    return bool(stack.api.get("/health/ready").json()["broker"] == "ok")


# A worker that loses its connection cancels its running tasks, at most two, because the broker requeues their messages.


def test_broker_restarted(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        stack.compose("restart", "rabbitmq")
        wait_until(lambda: is_relay_connected(stack), 60, "the relay to reconnect")
    assert not load.errors
    assert_all_done(load.ids, started_again=2)


def test_broker_crashed_three_times(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        for _ in range(3):
            faults.crash("rabbitmq")
            wait_until(lambda: is_relay_connected(stack), 60, "the relay to reconnect")
    assert not load.errors
    assert_all_done(load.ids, started_again=6, timeout=180)


def test_broker_frozen_for_10_s(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        with faults.frozen("rabbitmq"):
            frozen_at = len(load.ids)
            faults.hold(10)
            wait_until(lambda: len(load.ids) >= frozen_at + 100, 60, "100 more to be accepted during the fault")
        wait_until(lambda: is_relay_connected(stack), 60, "the relay to reconnect")
    assert not load.errors
    assert_all_done(load.ids, started_again=2)


def test_broker_crashed_with_unconfirmed_messages(stack: Stack, assert_all_done: AssertAllDone, ledger: Ledger) -> None:
    """A broker that dies while frozen loses its buffers, so the relay must not mark these messages as published."""
    before = faults.started_at("rabbitmq")
    with faults.frozen("rabbitmq"):
        ids = [stack.enqueue("effect") for _ in range(50)]
        wait_until(lambda: not is_relay_connected(stack), 20, "the broker to be reported as unavailable")
        faults.hold(8)  # the relay tries again
        published = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND outbox_action IS NULL"
        assert ledger.execute(published, ids=ids) == [(0,)]
        faults.kill("rabbitmq")
    wait_until(lambda: faults.started_at("rabbitmq") != before, 60, "Docker to restart the broker")
    assert_all_done(ids)


def test_broker_cut_off_for_10_s(stack: Stack, assert_all_done: AssertAllDone) -> None:
    with under_load() as load:
        with faults.cut_off("rabbitmq"):
            cut_at = len(load.ids)
            faults.hold(10)
            wait_until(lambda: len(load.ids) >= cut_at + 100, 60, "100 more to be accepted during the fault")
        wait_until(lambda: is_relay_connected(stack), 60, "the relay to reconnect")
    assert not load.errors
    assert_all_done(load.ids, started_again=2, sent_again=None, timeout=180)


@pytest.mark.parametrize("alarm", [faults.memory_alarm, faults.disk_alarm])
def test_broker_in_an_alarm(stack: Stack, assert_all_done: AssertAllDone, alarm: Any) -> None:
    with under_load() as load:
        with alarm(stack):
            alarms = "/health/checks/alarms"
            wait_until(lambda: stack.broker.get(alarms).status_code == 503, 30, "the alarm")
            wait_until(lambda: not is_relay_connected(stack), 30, "the broker to be reported as unavailable")
            blocked_at = len(load.ids)
            wait_until(lambda: len(load.ids) >= blocked_at + 200, 60, "200 more to be accepted during the fault")
        wait_until(lambda: is_relay_connected(stack), 60, "the relay to reconnect")
    assert not load.errors
    assert_all_done(load.ids, started_again=2, timeout=180)


def test_queue_purged(stack: Stack, assert_all_done: AssertAllDone, ledger: Ledger) -> None:
    with faults.stopped(stack, "worker"):
        with under_load() as load:
            wait_until(lambda: len(load.ids) >= 40, 30, "40 in the queue")
        published = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND outbox_action IS NULL"
        wait_until(lambda: ledger.execute(published, ids=load.ids) == [(len(load.ids),)], 30, "all to be published")
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "purge_queue", "celery")
    account = assert_all_done(load.ids, sent_again=None)
    assert account.sent_again >= account.accepted


def test_queue_purged_under_load(stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone) -> None:
    with under_load(each_second=10, seconds=240) as load:
        backlog = [stack.enqueue("effect", seconds=2) for _ in range(20)]
        wait_until(lambda: len(load.ids) >= 40, 60, "a backlog")
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "purge_queue", "celery")
        before = load.ids + backlog
        sent = len(load.ids)
        wait_until(lambda: ledger.unfinished(before) == 0, 200, "the purged runs to end under load")
        assert len(load.ids) > sent + 100
    account = assert_all_done(load.ids + backlog, sent_again=None, timeout=240)
    assert account.sent_again > 0


def test_lost_message_is_sent_again_under_a_standing_backlog(stack: Stack, ledger: Ledger) -> None:
    backlog = [stack.enqueue("effect", seconds=1) for _ in range(160)]
    row = """
        INSERT INTO task_runs (id, name, queue, arguments, state, publish_count, published_at)
        VALUES (%(id)s, 'add', 'celery', '{"x": 1, "y": 2}', 'PENDING', 1, now() - interval '2 minutes')
    """
    task_id = str(uuid4())
    ledger.execute(row, id=task_id)
    sent = "SELECT publish_count FROM task_runs WHERE id = %(id)s"
    wait_until(lambda: ledger.execute(sent, id=task_id) == [(2,)], 40, "the message to be sent again")
    assert ledger.unfinished(backlog) > 40
    assert stack.wait_for_end(task_id, timeout=150)["state"] == "SUCCESS"
    assert ledger.execute("SELECT DISTINCT publish_count FROM task_runs WHERE id = ANY(%(ids)s)", ids=backlog) == [(1,)]
