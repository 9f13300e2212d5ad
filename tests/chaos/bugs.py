"""Planted bugs: each replaces one string of the rendered project, which must occur exactly once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """A replacement in a file under `backend/app/core`."""

    file: str
    original: str
    broken: str

    def plant(self, project: Path) -> None:
        """Replace the string in a rendered project.

        Raises:
            ValueError: if the string does not occur exactly once.
        """
        file = project / "backend" / "app" / "core" / self.file
        text = file.read_text(encoding="utf-8")
        if (count := text.count(self.original)) != 1:
            message = f"{self.file}: {self.original!r} occurs {count} times (update tests/chaos/bugs.py)"
            raise ValueError(message)
        file.write_text(text.replace(self.original, self.broken), encoding="utf-8")


BUGS = {
    # The relay marks messages as published that the broker has not confirmed.
    "no-confirms": Bug(
        "tasks/relay.py",
        "connection.channel(publisher_confirms=True, on_return_raises=True)",
        "connection.channel(publisher_confirms=False)",
    ),
    # A message is acknowledged before its task starts.
    "early-ack": Bug("celery.py", "task_acks_late=True", "task_acks_late=False"),
    # Any message starts an attempt, regardless of the state of its run and its owner.
    "no-claim": Bug(
        "tasks/history.py",
        "where=is_free & (",
        "where=(",
    ),
    # Lost messages are detected only while their queue is empty.
    "no-watermark": Bug(
        "tasks/history.py",
        "(func.now() if empty else delivered_now)",
        "(func.now() if empty else func.now() - timedelta(days=9))",
    ),
    # The writes of a task commit before the end of its run.
    "separate-effect": Bug(
        "tasks/context.py",
        """\
        with deciding():
            if end is not None and """,
        """\
        event.remove(self._session, "before_commit", _reject_commit)
        self._session.commit()
        event.listen(self._session, "before_commit", _reject_commit)
        with deciding():
            if end is not None and """,
    ),
}
