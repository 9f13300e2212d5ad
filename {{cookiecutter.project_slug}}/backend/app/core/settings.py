"""Settings, read once from the environment."""

from functools import cache
from typing import Literal
from urllib.parse import quote

from pydantic import Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import URL


class DatabaseSettings(BaseSettings):
    """Variables of the processes that use PostgreSQL; Flower does not receive them."""

    postgres_host: str = "localhost"
    postgres_port: int = 5432
    postgres_user: str
    postgres_password: SecretStr
    postgres_db: str


class Settings(BaseSettings):
    """Environment variables, in uppercase there. Those without a default are required.

    The hosts default to `localhost`, where docker-compose.yml publishes the ports: tools on the host need no more than
    the variables of `.env`. Containers get the names of the services.
    """

    rabbitmq_host: str = "localhost"
    rabbitmq_port: int = 5672
    rabbitmq_default_user: str
    rabbitmq_default_pass: SecretStr

    celery_result_backend: str = "rpc://"
    worker_queues: str = ""

    backend_processes: PositiveInt = 1
    allowed_hosts: str = Field("", pattern=r"^([\w., -]|\[[\da-fA-F:.]+\])*$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @property
    def database_url(self) -> URL:
        """SQLAlchemy URL of PostgreSQL, for async and sync engines; its variables are required when it is used."""
        database = read(DatabaseSettings)
        return URL.create(
            "postgresql+psycopg",
            username=database.postgres_user,
            password=database.postgres_password.get_secret_value(),
            host=database.postgres_host,
            port=database.postgres_port,
            database=database.postgres_db,
        )

    @property
    def broker_url(self) -> str:
        """AMQP URL of RabbitMQ, on its default virtual host."""
        return f"amqp://{self._broker_user}@{self.rabbitmq_host}:{self.rabbitmq_port}//"

    @property
    def broker_api_url(self) -> str:
        """URL of RabbitMQ's management API, in the form that Flower requires."""
        return f"http://{self._broker_user}@{self.rabbitmq_host}:15672/api/"

    @property
    def _broker_user(self) -> str:
        password = self.rabbitmq_default_pass.get_secret_value()
        return f"{quote(self.rabbitmq_default_user, safe='')}:{quote(password, safe='')}"


def read[S: BaseSettings](kind: type[S]) -> S:
    """Return settings from the environment; exit with one line, without values, if a variable is missing or invalid."""
    try:
        return kind()
    except ValidationError as error:
        faults = (f"{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors())
        message = f"{'; '.join(faults)} (set it in .env)"
        raise SystemExit(message) from None


@cache
def settings() -> Settings:
    """Return the settings of this process; raises as `read`."""
    return read(Settings)
