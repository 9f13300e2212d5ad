"""The database schema: migrations are applied before the API serves and before a worker consumes.

`python -m app.schema` applies them and ends.
"""

import re
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import OperationalError
from tenacity import RetryCallState, retry, retry_if_exception, wait_fixed

from app.core import logs
from app.core.database import is_unavailable
from app.core.errors import ConfigurationError

logger = structlog.get_logger(__name__)

CONFIGURATION = Path(__file__).parent.parent / "alembic.ini"
PAUSE = 2.0  # seconds between attempts
REJECTED = re.compile(r"password authentication failed|database .* does not exist")


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("migrations wait for PostgreSQL", error=str(getattr(error, "orig", error)))


@retry(wait=wait_fixed(PAUSE), retry=retry_if_exception(is_unavailable), before_sleep=_log_retry)
def migrate() -> None:
    """Apply the migrations, once PostgreSQL is available; processes that start together take turns.

    A database that a newer version has migrated is left as it is.

    Raises:
        ConfigurationError: PostgreSQL rejects the login.
    """
    try:
        command.upgrade(Config(CONFIGURATION), "heads")
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
        logger.warning("database is newer than this version, starting without migration", error=str(error))
    except OperationalError as error:
        if not REJECTED.search(str(error)):
            raise
        message = (
            "PostgreSQL: login rejected (the volume db-data keeps the POSTGRES_ values of its first start: restore them"
            " in .env, or delete all data with docker compose down --volumes)"
        )
        raise ConfigurationError(message) from None


def main() -> None:
    """Apply the migrations; exit with one line if PostgreSQL rejects the login."""
    logs.configure()
    try:
        migrate()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
