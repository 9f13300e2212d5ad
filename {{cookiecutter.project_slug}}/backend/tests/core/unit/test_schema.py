import subprocess
import sys

import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from app import schema
from app.core.errors import ConfigurationError


def fail(reason: str) -> OperationalError:
    return OperationalError(None, None, Exception(f"connection failed: FATAL:  {reason}"))


@pytest.mark.parametrize("reason", ['password authentication failed for user "app"', 'database "app" does not exist'])
def test_start_reports_the_fix_when_postgresql_rejects_the_login(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def reject(*_: object) -> None:
        raise fail(reason)

    monkeypatch.setattr(command, "upgrade", reject)
    with pytest.raises(ConfigurationError, match=r"db-data .* in \.env"):
        schema.migrate()


def test_migrations_wait_until_postgresql_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [fail("the database system is starting up"), fail("sorry, too many clients already")]

    def upgrade(*_: object) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(command, "upgrade", upgrade)
    monkeypatch.setattr(schema.migrate.retry, "sleep", lambda _: None)
    schema.migrate()
    assert not failures


def test_workers_and_flower_do_not_import_the_api() -> None:
    code = "import sys, app.celery_app; print({'fastapi', 'alembic', 'aio_pika'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
