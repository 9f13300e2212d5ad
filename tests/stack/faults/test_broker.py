"""RabbitMQ breaks."""

from typing import Any
from uuid import uuid4

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import Settle
from tests.stack.faults.ledger import Ledger, under_load


def relay_is_well(stack: Stack) -> bool:
    return bool(stack.api.get("/health/ready").json()["broker"] == "ok")


# A worker that loses its connection cancels what is at work, at most two tasks, because their messages come back.


def test_broker_restarted(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        stack.compose("restart", "rabbitmq")
        wait_until(lambda: relay_is_well(stack), 60, "the relay to be back")
    assert not load.refused
    nothing_is_lost(load.ids, started_again=2)


def test_broker_crashed_three_times(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        for _ in range(3):
            faults.crash("rabbitmq")
            wait_until(lambda: relay_is_well(stack), 60, "the relay to be back")
    assert not load.refused
    nothing_is_lost(load.ids, started_again=6, timeout=180)


def test_broker_frozen_for_10_s(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        with faults.frozen("rabbitmq"):
            frozen_at = len(load.ids)
            wait_until(lambda: len(load.ids) >= frozen_at + 300, 60, "300 more to be accepted meanwhile")
        wait_until(lambda: relay_is_well(stack), 60, "the relay to be back")
    assert not load.refused
    nothing_is_lost(load.ids, started_again=2)


def test_broker_crashed_with_what_it_had_not_confirmed(stack: Stack, nothing_is_lost: Settle, ledger: Ledger) -> None:
    """Frozen, it takes messages into its buffers; what the relay believed to be published would die with it."""
    before = faults.starts("rabbitmq")
    with faults.frozen("rabbitmq"):
        ids = [stack.accept("effect") for _ in range(50)]
        wait_until(lambda: not relay_is_well(stack), 20, "the relay to have waited in vain")
        published = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND outbox_action IS NULL"
        assert ledger.execute(published, ids=ids) == [(0,)]
        faults.kill("rabbitmq")
    wait_until(lambda: faults.starts("rabbitmq") != before, 60, "the broker to come back by itself")
    nothing_is_lost(ids)


def test_broker_cut_off_for_10_s(stack: Stack, nothing_is_lost: Settle) -> None:
    with under_load() as load:
        with faults.cut_off("rabbitmq"):
            cut_at = len(load.ids)
            wait_until(lambda: len(load.ids) >= cut_at + 300, 60, "300 more to be accepted meanwhile")
        wait_until(lambda: relay_is_well(stack), 60, "the relay to be back")
    assert not load.refused
    nothing_is_lost(load.ids, started_again=2, sent_again=None, timeout=180)


@pytest.mark.parametrize("alarm", [faults.memory_alarm, faults.disk_alarm])
def test_broker_in_an_alarm(stack: Stack, nothing_is_lost: Settle, alarm: Any) -> None:
    with under_load() as load:
        with alarm(stack):
            blocked_at = len(load.ids)
            wait_until(lambda: len(load.ids) >= blocked_at + 300, 60, "300 more to be accepted meanwhile")
        wait_until(lambda: relay_is_well(stack), 60, "the relay to be back")
    assert not load.refused
    nothing_is_lost(load.ids, started_again=2, timeout=180)


def test_queue_purged(stack: Stack, nothing_is_lost: Settle, ledger: Ledger) -> None:
    with faults.stopped(stack, "worker"):
        with under_load() as load:
            wait_until(lambda: len(load.ids) >= 40, 30, "something in the queue")
        published = "SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s) AND outbox_action IS NULL"
        wait_until(lambda: ledger.execute(published, ids=load.ids) == [(len(load.ids),)], 30, "all to be published")
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "purge_queue", "celery")
    account = nothing_is_lost(load.ids, sent_again=None)
    assert account.sent_again >= account.accepted


def test_queue_purged_while_load_goes_on(stack: Stack, ledger: Ledger, nothing_is_lost: Settle) -> None:
    with under_load(each_second=40, seconds=240) as load:
        backlog = [stack.accept("effect", seconds=2) for _ in range(20)]
        wait_until(lambda: len(load.ids) >= 200, 60, "a backlog")
        stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "purge_queue", "celery")
        before = load.ids + backlog
        sent = len(load.ids)
        wait_until(lambda: ledger.unfinished(before) == 0, 200, "the purged runs to end under load")
        assert len(load.ids) > sent + 100
    account = nothing_is_lost(load.ids + backlog, sent_again=None, timeout=240)
    assert account.sent_again > 0


def test_message_lost_under_a_standing_backlog(stack: Stack, ledger: Ledger) -> None:
    backlog = [stack.accept("effect", seconds=1) for _ in range(160)]
    row = """
        INSERT INTO task_runs (id, name, queue, arguments, state, publish_count, published_at)
        VALUES (%(id)s, 'add', 'celery', '{"x": 1, "y": 2}', 'PENDING', 1, now() - interval '2 minutes')
    """
    task_id = str(uuid4())
    ledger.execute(row, id=task_id)
    sent = "SELECT publish_count FROM task_runs WHERE id = %(id)s"
    wait_until(lambda: ledger.execute(sent, id=task_id) == [(2,)], 40, "the message to be sent again")
    assert ledger.unfinished(backlog) > 40
    assert stack.end_of(task_id, timeout=150)["state"] == "SUCCESS"
    assert ledger.execute("SELECT DISTINCT publish_count FROM task_runs WHERE id = ANY(%(ids)s)", ids=backlog) == [(1,)]
