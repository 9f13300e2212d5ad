import pytest
from pydantic import ValidationError

from app.core.settings import Settings


def settings(**values: str) -> Settings:
    given = {
        "postgres_user": "app",
        "postgres_password": "secret",
        "postgres_db": "app",
        "rabbitmq_host": "rabbitmq",
        "rabbitmq_default_user": "app",
        "rabbitmq_default_pass": "secret",
    }
    return Settings.model_validate(given | values)


def test_passwords_may_contain_any_character() -> None:
    odd = settings(postgres_password="p@ss/w:rd%", rabbitmq_default_pass="p@ss/w:rd%")
    assert odd.database_url.password == "p@ss/w:rd%"
    assert odd.broker_url == "amqp://app:p%40ss%2Fw%3Ard%25@rabbitmq:5672//"
    assert odd.broker_api_url == "http://app:p%40ss%2Fw%3Ard%25@rabbitmq:15672/api/"


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(settings())


def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_USER")
    with pytest.raises(ValidationError, match="postgres_user"):
        Settings()


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_invalid_number_of_processes_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="backend_processes"):
        settings(backend_processes=value)
