"""Every variant, rendered once a session."""

from collections.abc import Callable, Iterable

import pytest

from tests.project import Project
from tests.variants import EVERY


@pytest.fixture(scope="session")
def projects(render) -> list[Project]:
    """Every variant."""
    return [render(variant) for variant in EVERY]


@pytest.fixture(scope="session")
def distinct(projects) -> Callable[[Callable[[str], bool]], Iterable[Project]]:
    """Projects that differ in the files a test looks at: those with the same ones are checked once."""

    def differing(concerns: Callable[[str], bool]) -> Iterable[Project]:
        by_content = {
            tuple((path, text) for path, text in project.files.items() if concerns(path)): project
            for project in projects
        }
        assert by_content
        return by_content.values()

    return differing


@pytest.fixture(scope="session")
def texts(projects) -> dict[tuple[str, str], str]:
    """Each distinct file: its path and its text, and the id of a variant that has it."""
    return {(path, text): project.variant.id for project in projects for path, text in project.files.items()}
