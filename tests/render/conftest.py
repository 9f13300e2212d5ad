"""Every variant, rendered once a session."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from tests.project import Project
from tests.variants import EVERY, TEMPLATE, Variant


def rendered(variant: Variant, folder: Path) -> Project:
    """Render a variant into a folder of its own, in one of several processes."""
    options = {"no_input": True, "config_file": folder.parent / "config.yaml"}
    answers = dict(variant.answers)
    return Project(Path(cookiecutter(str(TEMPLATE), output_dir=folder, extra_context=answers, **options)), variant)


@pytest.fixture(scope="session")
def projects(tmp_path_factory) -> list[Project]:
    """Every variant."""
    folder = tmp_path_factory.mktemp("every")
    (folder / "config.yaml").write_text(f"replay_dir: {folder / 'replay'}\n", encoding="utf-8")
    with ProcessPoolExecutor() as pool:
        return list(pool.map(rendered, EVERY, [folder / variant.id for variant in EVERY], chunksize=8))


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
