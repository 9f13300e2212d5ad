"""What the relay brings back: runs that no message stands for."""

from uuid import uuid4

from sqlalchemy import func, insert, text

from app import database
from app.history import State, runs
from tests.services.conftest import Api


def lose(name: str, *, publications: int) -> str:
    """Write the row of a run as if its message had been sent long ago and lost."""
    task_id = str(uuid4())
    long_ago = func.now() - text("interval '1 day'")
    row = {"id": task_id, "name": name, "arguments": {"x": 2, "y": 3}, "state": State.PENDING}
    sent = {"accepted_at": long_ago, "published_at": long_ago, "publications": publications}
    with database.engine().connect() as connection:
        connection.execute(insert(runs).values(**row, **sent))
    return task_id


def test_a_lost_message_is_sent_again_or_the_run_given_up(api: Api) -> None:
    once, often = lose("add", publications=1), lose("add", publications=8)
    run = api.end_of(once, timeout=60)
    assert (run["state"], run["result"], run["attempts"]) == ("SUCCESS", 5, 1)
    run = api.end_of(often, timeout=60)
    assert (run["state"], run["error"]) == ("FAILURE", "lost: no worker took its message, sent 8 times")
