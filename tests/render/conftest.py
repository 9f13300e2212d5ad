"""A covering set of variants, rendered once a session."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from tests.project import Project
from tests.variants import TEMPLATE, Variant, covering

Distinct = Callable[[Callable[[str], bool]], Iterable[Project]]
Texts = dict[tuple[str, str], str]


def rendered(variant: Variant, folder: Path) -> Project:
    """Render a variant into a folder of its own, in one of several processes."""
    options = {"no_input": True, "config_file": folder.parent / "config.yaml"}
    answers = dict(variant.answers)
    return Project(Path(cookiecutter(str(TEMPLATE), output_dir=folder, extra_context=answers, **options)), variant)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> list[Project]:
    """Render the covering set."""
    folder = tmp_path_factory.mktemp("covering")
    (folder / "config.yaml").write_text(f"replay_dir: {folder / 'replay'}\n", encoding="utf-8")
    variants = covering()
    with ProcessPoolExecutor() as pool:
        return list(pool.map(rendered, variants, [folder / variant.id for variant in variants], chunksize=4))


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
