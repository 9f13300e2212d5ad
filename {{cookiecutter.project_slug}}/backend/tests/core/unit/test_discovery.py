from pathlib import Path

import pytest
from fastapi import APIRouter

from app import discovery, main
from app.core.errors import ConfigurationError
from app.core.tasks import queues


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(discovery, "FOLDER", tmp_path)
    return tmp_path


def test_features_are_packages_in_alphabetical_order(folder: Path) -> None:
    for name in ("orders", "mail"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    (folder / "gone" / "__pycache__").mkdir(parents=True)
    (folder / "queues.py").touch()
    assert discovery.names() == ["mail", "orders"]


def test_modules_and_packages_of_features_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "PACKAGE", "tests")
    monkeypatch.setattr(discovery, "names", lambda: ["core", "features"])
    assert [module.__name__ for module in discovery.load("unit")] == ["tests.core.unit"]
    assert [module.__name__ for module in discovery.load("tasks")] == ["tests.core.tasks"]


def test_two_endpoints_of_one_name_are_rejected() -> None:
    routers = []
    for path in ("/one", "/other"):
        router = APIRouter()
        router.add_api_route(path, discovery.names, name="get_one")
        routers.append(router)
    with pytest.raises(ConfigurationError, match=r"two endpoints are get_one \(rename one of them\)"):
        main._check_endpoints(routers)


def test_folder_with_an_invalid_name_is_rejected(folder: Path) -> None:
    (folder / "my-feature").mkdir()
    (folder / "my-feature" / "tasks.py").touch()
    with pytest.raises(ConfigurationError, match="app/features/my-feature: not a valid package name"):
        discovery.names()


def test_two_features_of_one_name_are_rejected(folder: Path) -> None:
    (folder / "orders").mkdir()
    (folder / "orders" / "__init__.py").touch()
    (folder / "orders.py").touch()
    with pytest.raises(ConfigurationError, match=r"app/features/orders: app/features/orders\.py has the same name"):
        discovery.names()


def test_folder_that_is_not_a_package_is_rejected(folder: Path) -> None:
    (folder / "orders").mkdir()
    (folder / "orders" / "tasks.py").touch()
    with pytest.raises(ConfigurationError, match=r"app/features/orders: __init__\.py is missing"):
        discovery.names()


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "the default queue is missing"),
        (["celery", "celery"], '"celery" is listed twice'),
        (["celery", "a,b"], '"a,b" is reserved or invalid'),
        (["celery", "bulk.mail"], '"bulk.mail" is reserved or invalid'),
        (["celery", "dead-letters"], '"dead-letters" is reserved'),
    ],
)
def test_invalid_queues_are_rejected(names: list[str], problem: str) -> None:
    before = queues.names()
    with pytest.raises(ConfigurationError, match=problem):
        queues.define(names)
    assert queues.names() == before


def test_worker_queues_are_selected_by_name() -> None:
    assert queues.selected("") == []
    assert queues.selected(" celery ") == ["celery"]
    with pytest.raises(SystemExit, match="WORKER_QUEUES: unknown queue mial"):
        queues.selected("celery,mial")
