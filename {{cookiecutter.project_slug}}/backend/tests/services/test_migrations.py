from pathlib import Path

from alembic import command
from alembic.config import Config


def test_the_migrations_make_the_tables_that_the_code_knows() -> None:
    command.check(Config(Path(__file__).parents[2] / "alembic.ini"))
