"""What differs between one place this service runs in and another: read once, from the environment."""

from functools import cache
from typing import Literal
from urllib.parse import quote

from pydantic import PositiveInt, SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import URL


class Settings(BaseSettings):
    """The environment variables, each in capitals there; those without a default have to be set."""

    postgres_host: str = "db"
    postgres_port: int = 5432
    postgres_user: str
    postgres_password: SecretStr
    postgres_db: str

    rabbitmq_host: str = "rabbitmq"
    rabbitmq_port: int = 5672
    rabbitmq_default_user: str
    rabbitmq_default_pass: SecretStr

    celery_result_backend: str

    backend_processes: PositiveInt = 1
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @property
    def database_url(self) -> URL:
        """SQLAlchemy's address of PostgreSQL; psycopg serves the API (async) and the worker (sync) alike."""
        return URL.create(
            "postgresql+psycopg",
            username=self.postgres_user,
            password=self.postgres_password.get_secret_value(),
            host=self.postgres_host,
            port=self.postgres_port,
            database=self.postgres_db,
        )

    @property
    def broker_url(self) -> str:
        """The address of RabbitMQ, on its default virtual host."""
        return f"amqp://{self._broker_user}@{self.rabbitmq_host}:{self.rabbitmq_port}//"

    @property
    def broker_api_url(self) -> str:
        """The address of RabbitMQ's management API, in the form that Flower asks for."""
        return f"http://{self._broker_user}@{self.rabbitmq_host}:15672/api/"

    @property
    def _broker_user(self) -> str:
        password = self.rabbitmq_default_pass.get_secret_value()
        return f"{quote(self.rabbitmq_default_user, safe='')}:{quote(password, safe='')}"


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises:
        pydantic.ValidationError: a variable is missing or has no usable value; it names the variable.
    """
    return Settings()
