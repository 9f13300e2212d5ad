import pytest
from pydantic import ValidationError

from app.core.settings import DatabaseSettings, Settings, read


def settings(**values: str) -> Settings:
    given = {"rabbitmq_host": "rabbitmq", "rabbitmq_default_user": "app", "rabbitmq_default_pass": "secret"}
    return Settings.model_validate(given | values)


def test_passwords_may_contain_any_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "p@ss/w:rd%")
    odd = settings(rabbitmq_default_pass="p@ss/w:rd%")
    assert odd.database_url.password == "p@ss/w:rd%"
    assert odd.broker_url == "amqp://app:p%40ss%2Fw%3Ard%25@rabbitmq:5672//"
    assert odd.broker_api_url == "http://app:p%40ss%2Fw%3Ard%25@rabbitmq:15672/api/"


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(settings())
    assert "secret" not in repr(read(DatabaseSettings))


def test_missing_variables_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITMQ_DEFAULT_USER")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as exit_:
        read(Settings)
    problem = "Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"
    assert exit_.value.code == f"RABBITMQ_DEFAULT_USER: Field required; LOG_LEVEL: {problem} (set it in .env)"


def test_database_variables_are_required_by_their_first_use_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower does not have these variables."""
    for name in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"):
        monkeypatch.delenv(name)
    without = read(Settings)
    with pytest.raises(SystemExit, match="POSTGRES_USER: Field required; POSTGRES_PASSWORD: "):
        _ = without.database_url


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_invalid_number_of_processes_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="backend_processes"):
        settings(backend_processes=value)


@pytest.mark.parametrize("value", ["https://api.example.com", "api.example.com:8443", "*", "::1"])
def test_invalid_allowed_host_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="allowed_hosts"):
        settings(allowed_hosts=value)
