"""A covering set of variants, rendered once a session."""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.project import Project, render_project
from tests.variants import covering

Distinct = Callable[[Callable[[str], bool]], Iterable[Project]]
Texts = dict[tuple[str, str], str]

needs_compose = pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is not installed")
"""Mark of tests that parse files with `docker compose config`, which needs no engine."""


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> list[Project]:
    """Render the covering set."""
    folder = tmp_path_factory.mktemp("covering")
    config = folder / "config.yaml"
    config.write_text(f"replay_dir: {folder / 'replay'}\n", encoding="utf-8")
    variants = covering()
    with ProcessPoolExecutor() as pool:
        folders = [folder / variant.id for variant in variants]
        return list(pool.map(render_project, variants, folders, [config] * len(variants), chunksize=4))


@pytest.fixture(scope="session")
def distinct(projects: list[Project]) -> Distinct:
    """Select projects that differ in the files that a test reads."""

    def differing(concerns: Callable[[str], bool]) -> Iterable[Project]:
        by_content = {
            tuple((path, text) for path, text in project.files.items() if concerns(path)): project
            for project in projects
        }
        assert by_content
        return by_content.values()

    return differing


@pytest.fixture(scope="session")
def texts(projects: list[Project]) -> Texts:
    """Return each distinct file, its path and its text, with the id of a variant that has it."""
    return {(path, text): project.variant.id for project in projects for path, text in project.files.items()}
