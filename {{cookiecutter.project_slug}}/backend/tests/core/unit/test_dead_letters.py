from collections import Counter
from types import SimpleNamespace
from typing import Any

from amqp import Message

from app.dead_letters import process

BROKER_HEADERS = {
    "x-death": [{"queue": "celery", "reason": "rejected", "count": 1}],
    "x-first-death-queue": "celery_delayed_3",
    "x-first-death-reason": "expired",
    "x-last-death-queue": "celery",
    "x-last-death-reason": "rejected",
    "x-delivery-count": 1,
}


class Channel:
    """A channel whose broker returns every message to the dead-letter queue at once."""

    def __init__(self, *messages: Message) -> None:
        self.waiting = list(messages)
        self.calls: list[tuple[Any, ...]] = []

    def queue_declare(self, name: str, *, passive: bool) -> Any:
        assert (name, passive) == ("dead-letters", True)
        return SimpleNamespace(message_count=len(self.waiting))

    def basic_get(self, name: str) -> Message | None:
        assert name == "dead-letters"
        if not self.waiting:
            return None
        message = self.waiting.pop(0)
        message.delivery_info = {"delivery_tag": len(self.calls)}
        return message

    def basic_publish(self, message: Message, **options: Any) -> None:
        self.calls.append(("publish", message.body, message.headers, options))
        self.waiting.append(message)

    def basic_ack(self, delivery_tag: int) -> None:
        self.calls.append(("ack", delivery_tag))


def dead_letter(body: bytes = b"[]", **headers: Any) -> Message:
    return Message(body, application_headers={**BROKER_HEADERS, **headers}, correlation_id="id")


def test_dead_letters_are_counted_by_task_and_reason() -> None:
    channel = Channel(dead_letter(task="gone"), dead_letter(task="gone"), Message(b"\0"))
    assert process(channel) == Counter(
        {("gone", "rejected", "celery", "kept"): 2, ("unknown", "unknown", "unknown", "kept"): 1}
    )
    assert channel.calls == []


def test_redriven_message_is_acknowledged_after_its_copy_is_confirmed() -> None:
    message = dead_letter(b"\xff\0", task="add", id="id")
    channel = Channel(message)
    assert process(channel, redrive=True) == Counter({("add", "rejected", "celery", "sent back"): 1})
    headers, options = {"task": "add", "id": "id"}, {"routing_key": "celery", "mandatory": True}
    assert channel.calls == [("publish", b"\xff\0", headers, options), ("ack", 0)]
    assert message.properties["correlation_id"] == "id"


def test_redrive_ends_when_messages_return_at_once() -> None:
    channel = Channel(dead_letter(task="gone"))
    assert process(channel, redrive=True).total() == 1


def test_message_of_an_unknown_queue_is_kept() -> None:
    removed = Message(b"", application_headers={"task": "add", "x-last-death-queue": "removed"})
    channel = Channel(removed, Message(b""))
    assert process(channel, redrive=True).total() == 2
    assert channel.calls == []
