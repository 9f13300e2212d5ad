"""Settings, read once from the environment."""

import re
from functools import cache
from typing import Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings
from sqlalchemy import URL

FLOWER = "flower"
"""Name of the API key that Flower uses."""

_KEY = re.compile(r"[\w.-]{1,100}:[!-+\--~]{16,}", re.ASCII)  # printable, without blanks and commas


def _pairs(keys: SecretStr) -> list[tuple[str, str, str]]:
    return [pair.strip().partition(":") for pair in keys.get_secret_value().split(",") if pair.strip()]


class DatabaseSettings(BaseSettings):
    """Variables of the processes that use PostgreSQL; Flower does not receive them."""

    postgres_host: str = "localhost"
    postgres_port: int = 5432
    postgres_user: str
    postgres_password: SecretStr
    postgres_db: str


class Settings(BaseSettings, env_ignore_empty=True):
    """Environment variables, in uppercase there. Those without a default are required; an empty one is not set.

    The hosts default to `localhost`, where docker-compose.yml publishes the ports: tools on the host need no more than
    the variables of `.env`. Containers get the names of the services.
    """

    rabbitmq_host: str = "localhost"
    rabbitmq_port: int = 5672
    rabbitmq_default_user: str
    rabbitmq_default_pass: SecretStr
    rabbitmq_vhost: str = Field("/", pattern=r"^[\w./-]+$")
    rabbitmq_tls: bool = False
    rabbitmq_management_port: int = 15672

    celery_result_backend: str = "rpc://"
    worker_queues: str = ""
    api_url: str = "http://localhost:8060"
    api_key: SecretStr = SecretStr("")
    api_keys: SecretStr = SecretStr("")
    flower_api_key: SecretStr = SecretStr("")

    backend_processes: int = Field(1, ge=1, le=20)  # each uses three of PostgreSQL's connections or more
    history_days: int = Field(30, ge=0, le=36_500)
    history_failure_days: int = Field(90, ge=0, le=36_500)
    allowed_hosts: str = Field("", pattern=r"^([\w., -]|\[[\da-fA-F:.]+\])*$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr) -> SecretStr:
        pairs = _pairs(value)
        names = {name for name, _, _ in pairs}
        are_valid = all(_KEY.fullmatch("".join(pair)) for pair in pairs)
        if not are_valid or len(names) < len(pairs) or FLOWER in names or (value.get_secret_value() and not pairs):
            rule = f'keys of 16 or more printable ASCII characters; the name "{FLOWER}" is taken'
            message = f"use name:key, or several pairs with different names, separated by commas, and {rule}"
            raise ValueError(message)
        return value

    @field_validator("flower_api_key")
    @classmethod
    def _check_key_of_flower(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _KEY.fullmatch(f"{FLOWER}:{value.get_secret_value()}"):
            message = "use 16 or more printable ASCII characters, or nothing"
            raise ValueError(message)
        return value

    @property
    def keys(self) -> dict[str, str]:
        """The API keys by name, with that of Flower; nothing without `API_KEYS`."""
        keys = {name: key for name, _, key in _pairs(self.api_keys)}
        of_flower = self.flower_api_key.get_secret_value()
        return keys | {FLOWER: of_flower} if keys and of_flower else keys

    @property
    def database_url(self) -> URL:
        """SQLAlchemy URL of PostgreSQL, for async and sync engines; its variables are required when it is used."""
        db = read(DatabaseSettings)
        password = db.postgres_password.get_secret_value()
        return URL.create(
            "postgresql+psycopg", db.postgres_user, password, db.postgres_host, db.postgres_port, db.postgres_db
        )

    @property
    def broker_url(self) -> str:
        """AMQP URL of RabbitMQ and the virtual host."""
        address = f"{self._broker_user}@{self.rabbitmq_host}:{self.rabbitmq_port}/{self.rabbitmq_vhost}"
        return f"amqps://{address}" if self.rabbitmq_tls else f"amqp://{address}"

    @property
    def broker_api_url(self) -> str:
        """URL of RabbitMQ's management API, in the form that Flower requires."""
        address = f"{self._broker_user}@{self.rabbitmq_host}:{self.rabbitmq_management_port}/api/"
        return f"https://{address}" if self.rabbitmq_tls else f"http://{address}"

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
