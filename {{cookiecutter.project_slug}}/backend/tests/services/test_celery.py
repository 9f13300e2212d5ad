"""Tasks that other code sends, by Celery's own means."""

from uuid import uuid4

from app.celery_app import celery_app
from tests.services.conftest import Api


def test_the_sender_gets_the_result(api: Api) -> None:
    sent = celery_app.send_task("add", kwargs={"x": 2, "y": 3})
    assert sent.get(timeout=30) == 5
    run = api.end_of(sent.id)
    assert (run["name"], run["arguments"], run["result"]) == ("add", {"x": 2, "y": 3}, 5)


def test_arguments_by_place_are_recorded_by_name(api: Api) -> None:
    sent = celery_app.send_task("add", args=(2, 3))
    assert sent.get(timeout=30) == 5
    assert api.end_of(sent.id)["arguments"] == {"x": 2, "y": 3}


def test_wrong_arguments_fail_in_the_history(api: Api) -> None:
    sent = celery_app.send_task("add", kwargs={"x": "two"})
    run = api.end_of(sent.id)
    assert run["state"] == "FAILURE"
    assert "ValidationError" in run["error"]


def test_a_message_delivered_twice_is_done_once(api: Api) -> None:
    task_id = str(uuid4())
    for _ in range(2):
        celery_app.send_task("slow", kwargs={"duration": 1}, task_id=task_id)
    marker = celery_app.send_task("slow", kwargs={"duration": 2})
    assert api.end_of(marker.id)["state"] == "SUCCESS"
    run = api.run(task_id)
    assert (run["state"], run["attempts"]) == ("SUCCESS", 1)
