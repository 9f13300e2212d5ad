"""Dead letters: the documented command counts and redrives them."""

from tests.stack.conftest import Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.ledger import Ledger

COMMAND = ("exec", "-T", "backend", "python", "-m", "app.dead_letters")


def dead_letters(stack: Stack, *options: str) -> list[str]:
    """Run the command; return its output without indentation."""
    return [line.strip() for line in stack.compose(*COMMAND, *options).splitlines()]


def run_in_backend(stack: Stack, code: str) -> None:
    """Run Python code with the Celery application `c`."""
    program = f"from app.celery_app import celery_app as c\n{code}"
    stack.compose("exec", "-T", "backend", "python", "-c", program)


def purge(stack: Stack) -> None:
    """Remove the dead letters of other tests."""
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "purge_queue", "dead-letters")


def rejections(stack: Stack) -> int:
    """Return the number of messages of an unknown task that the worker has rejected."""
    return stack.compose("logs", "worker").count("unknown task 'nonesuch'")


def test_redriven_message_of_an_unknown_task_is_a_dead_letter_again(stack: Stack) -> None:
    purge(stack)
    before = rejections(stack)
    run_in_backend(stack, "c.send_task('nonesuch', kwargs={'text': 'an-unusual-argument'})")
    found = ["1 dead letters", "1  task nonesuch, rejected in queue celery: kept"]
    wait_until(lambda: dead_letters(stack) == found, 30, "the dead letter to be listed")
    for _ in range(3):  # listing changes nothing
        assert dead_letters(stack) == found
    assert rejections(stack) == before + 1
    sent = dead_letters(stack, "--redrive")
    assert sent == ["1 dead letters", "1  task nonesuch, rejected in queue celery: sent back"]
    wait_until(lambda: rejections(stack) == before + 2, 30, "the worker to reject it again")
    wait_until(lambda: dead_letters(stack) == found, 30, "one dead letter again")
    purge(stack)


def test_dead_letter_survives_repeated_listing(stack: Stack) -> None:
    """List them more often than the default delivery limit of a quorum queue, which is 20."""
    purge(stack)
    run_in_backend(stack, "c.send_task('nonesuch')")
    wait_until(lambda: dead_letters(stack)[0] == "1 dead letters", 30, "the dead letter to be listed")
    listing = """
from app import dead_letters
for _ in range(30):
    with c.connection_for_write() as connection:
        assert dead_letters.process(connection.default_channel).total() == 1
"""
    run_in_backend(stack, listing)
    assert dead_letters(stack)[0] == "1 dead letters"
    purge(stack)


def test_redriven_message_of_a_run_is_executed(stack: Stack, ledger: Ledger) -> None:
    purge(stack)
    with faults.stopped(stack, "worker"):
        task_id = stack.enqueue("add", x=1, y=2)
        reject = """
import time
with c.connection_for_write() as k:
    while not (message := k.default_channel.basic_get("celery")):
        time.sleep(0.1)
    k.default_channel.basic_reject(message.delivery_tag, requeue=False)
"""
        run_in_backend(stack, reject)
        found = ["1 dead letters", "1  task add, rejected in queue celery: kept"]
        wait_until(lambda: dead_letters(stack) == found, 30, "the dead letter to be listed")
        assert dead_letters(stack, "--redrive")[1].endswith("sent back")
        assert dead_letters(stack) == ["0 dead letters"]
    run = stack.wait_for_end(task_id)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 3, 1)
    sent = "SELECT publish_count FROM task_runs WHERE id = %(id)s"
    assert ledger.execute(sent, id=task_id) == [(1,)]  # the relay did not publish it again
