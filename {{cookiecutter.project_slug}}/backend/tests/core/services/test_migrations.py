from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

pytestmark = pytest.mark.services


def test_migrations_create_the_tables_of_the_code() -> None:
    command.check(Config(Path(__file__).parents[3] / "alembic.ini"))
