"""Messages that are large, unpublishable, or part of a Celery workflow."""

import json
from uuid import uuid4

import pytest

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger

MEGABYTE = 1_000_000

WORKFLOWS = """
import json
from celery import chain, chord, group
from app.celery_app import celery_app
from app.features.faults.tasks import effect

def step():
    return effect.si(seconds=1)

ids = []
for _ in range(5):
    links = chain(step(), step(), step())
    links.freeze()
    ids += [link.id for link in links.tasks]
    links.apply_async()
    members = group(step(), step())
    members.freeze()
    ids += [member.id for member in members.tasks]
    members.apply_async()
    first, callback = step(), step()
    callback.freeze()
    ids += [first.freeze().id, callback.id]
    first.apply_async(link=callback)
    if CHORDS:
        body = step()
        body.freeze()
        header = group(step(), step())
        header.freeze()
        ids += [each.id for each in header.tasks] + [body.id]
        chord(header.tasks)(body)
print(json.dumps(ids))
"""


def send_workflows(stack: Stack) -> list[str]:
    """Send chains, groups, callbacks and chords without the outbox, as Celery does; return the ids of all runs."""
    chords = stack.variant["result_backend"] != "rpc"
    code = WORKFLOWS.replace("CHORDS", str(chords))
    ids: list[str] = json.loads(stack.compose("exec", "-T", "backend", "python", "-c", code))
    return ids


def all_have_rows(ledger: Ledger, ids: list[str]) -> bool:
    """Return whether each of these runs has a row."""
    return ledger.execute("SELECT count(*) FROM task_runs WHERE id = ANY(%(ids)s)", ids=ids) == [(len(ids),)]


@pytest.mark.parametrize("fault", ["broker restarted", "broker crashed", "worker crashed"])
def test_workflow_continues(stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone, fault: str) -> None:
    ids = send_workflows(stack)
    wait_until(lambda: ledger.unfinished(ids) < len(ids) - 4, 60, "some runs to end")
    if fault == "broker restarted":
        stack.compose("restart", "rabbitmq")
    else:
        faults.crash("rabbitmq" if fault == "broker crashed" else "worker")
    wait_until(lambda: all_have_rows(ledger, ids), 150, "every part of each workflow to have started")
    assert_all_done(ids, started_again=None, timeout=150)


def send_document(stack: Stack, size: int) -> str:
    """Submit a document of `size` characters; return the id of the run."""
    response = stack.api.post("/tasks/measure", json={"document": {"text": "x" * size}})
    assert response.status_code == 202, response.text
    return str(response.json()["task_id"])


def test_argument_of_15_megabytes_is_delivered(stack: Stack) -> None:
    run = stack.wait_for_end(send_document(stack, 15 * MEGABYTE), timeout=60)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 15 * MEGABYTE, 1)


def test_unpublishable_rows_do_not_block_others(stack: Stack, ledger: Ledger) -> None:
    """One row is larger than the broker's limit, and one has an unknown queue."""
    unroutable = str(uuid4())
    row = """
        INSERT INTO task_runs (id, name, queue, arguments, state, outbox_action)
        VALUES (%(id)s, 'add', 'nonesuch', '{"x": 1, "y": 2}', 'PENDING', 'publish')
    """
    ids = [stack.enqueue("add", x=1, y=1)]
    too_large = send_document(stack, 17 * MEGABYTE)
    ledger.execute(row, id=unroutable)
    ids += [stack.enqueue("add", x=1, y=1) for _ in range(20)]
    assert {stack.wait_for_end(task_id)["state"] for task_id in ids} == {"SUCCESS"}
    run = stack.wait_for_end(too_large)
    assert run["state"] == "FAILURE"
    assert run["error"].startswith("arguments: 1700")
    postponed = "SELECT publish_at > now() FROM task_runs WHERE id = %(id)s AND outbox_action IS NOT NULL"
    assert ledger.execute(postponed, id=unroutable) == [(True,)]
    assert stack.api.delete(f"/tasks/{unroutable}").status_code == 200
    assert stack.api.get("/health/ready").json()["broker"] == "ok"
