"""A newer version is deployed under load, service by service, and rolled back."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.stack.conftest import SLUG, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import FEATURES, AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load

IMAGE = f"{SLUG}-backend"
RESTARTING = {"ConnectError", "RemoteProtocolError", "ReadError", "ReadTimeout", "503"}
"""Errors of requests while the container of the API is replaced."""

MIGRATION = '''
"""Lock the table of the runs for 10 s."""

import sqlalchemy as sa
from alembic import op

revision = "slow01"
down_revision = None
branch_labels = ("features",)
depends_on = None


def upgrade() -> None:
    op.execute("LOCK TABLE task_runs")
    op.execute("SELECT pg_sleep(10)")
    op.create_table("slow_migration", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("slow_migration")
'''


class Versions:
    """Images of an older and a newer version of the project."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        backend = stack.project.path / "backend"
        self.tasks = backend / "app" / "features" / "versions" / "tasks.py"
        self.migration = backend / "migrations" / "features" / "slow01.py"
        self.older = self.tasks.read_text(encoding="utf-8")

    def build(self) -> None:
        """Tag the image as `old`, and build the newer version as `new`."""
        faults.docker("tag", IMAGE, f"{IMAGE}:old")
        self.tasks.write_text((FEATURES / "versions" / "newer.py.txt").read_text(encoding="utf-8"), encoding="utf-8")
        self.migration.parent.mkdir(exist_ok=True)
        self.migration.write_text(MIGRATION, encoding="utf-8")
        self.stack.compose("build", "backend")
        faults.docker("tag", IMAGE, f"{IMAGE}:new")

    def deploy(self, version: str, *services: str) -> None:
        """Replace the containers of some services with those of a version."""
        faults.docker("tag", f"{IMAGE}:{version}", IMAGE)
        self.stack.compose("up", "--wait", "--no-deps", "--no-build", *services)

    def restore(self) -> None:
        """Return to the older version."""
        self.tasks.write_text(self.older, encoding="utf-8")
        self.migration.unlink()
        with contextlib.suppress(OSError):
            self.migration.parent.rmdir()
        self.deploy("old", "backend", "worker", "flower")


@pytest.fixture(scope="module")
def versions(deployed: Stack) -> Iterator[Versions]:
    """Build both versions. The older one is restored at the end."""
    versions = Versions(deployed)
    versions.build()
    yield versions
    versions.restore()


def results(stack: Stack, ids: dict[str, str]) -> dict[str, str]:
    """Return the results of runs once they have ended."""
    return {name: stack.wait_for_end(task_id, timeout=240)["result"] for name, task_id in ids.items()}


def test_newer_backend_with_older_workers(stack: Stack, versions: Versions, assert_all_done: AssertAllDone) -> None:
    """The deploy runs a slow migration. Calls that only newer workers can read wait for them."""
    with under_load(each_second=20, seconds=120) as load:
        versions.deploy("new", "backend")
        ids = {
            "gained, not given": stack.enqueue("gaining", x=1),
            "gained": stack.enqueue("gaining", x=2, extra="given"),
            "lost": stack.enqueue("losing", x=3),
            "renamed": stack.enqueue("renaming", after=4),
            "added": stack.enqueue("added"),
        }
        assert stack.wait_for_end(ids["gained, not given"])["result"] == "old 1"
        assert stack.wait_for_end(ids["lost"])["result"] == "old 3 0"
        wait_until(lambda: stack.api.get(f"/tasks/{ids['renamed']}").json()["attempts"] >= 2, 30, "a retry")
        versions.deploy("new", "worker")
    assert set(load.errors) <= RESTARTING
    assert_all_done(load.ids, sent_again=None, timeout=180)
    assert results(stack, ids) == {
        "gained, not given": "old 1",
        "gained": "new 2 given",
        "lost": "old 3 0",
        "renamed": "new 4",
        "added": "new",
    }


def test_older_backend_with_newer_workers(
    stack: Stack, versions: Versions, ledger: Ledger, assert_all_done: AssertAllDone
) -> None:
    """Roll back the API first, on a database that is newer than its migrations, then the workers."""
    with under_load(each_second=20, seconds=120) as load:
        versions.deploy("new", "backend", "worker")
        versions.deploy("old", "backend")
        assert ledger.execute("SELECT count(*) FROM alembic_version WHERE version_num = 'slow01'") == [(1,)]
        ids = {
            "gained": stack.enqueue("gaining", x=1),
            "lost": stack.enqueue("losing", x=2, y=3),
            "renamed": stack.enqueue("renaming", before=4),
        }
        assert stack.wait_for_end(ids["gained"])["result"] == "new 1 default"
        assert stack.wait_for_end(ids["renamed"])["result"] == "new 4"
        wait_until(lambda: stack.api.get(f"/tasks/{ids['lost']}").json()["attempts"] >= 2, 30, "a retry")
        versions.deploy("old", "worker")
    assert set(load.errors) <= RESTARTING
    assert_all_done(load.ids, sent_again=None, timeout=180)
    assert results(stack, ids) == {"gained": "new 1 default", "lost": "old 2 3", "renamed": "new 4"}
