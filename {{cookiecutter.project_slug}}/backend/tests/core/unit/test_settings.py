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


def test_managed_broker_is_reached_by_tls_on_its_virtual_host() -> None:
    managed = settings(rabbitmq_tls="true", rabbitmq_port="5671", rabbitmq_management_port="443", rabbitmq_vhost="shop")
    assert managed.broker_url == "amqps://app:secret@rabbitmq:5671/shop"
    assert managed.broker_api_url == "https://app:secret@rabbitmq:443/api/"


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


def test_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_PROCESSES", "")  # as in .env
    assert read(Settings).backend_processes == 1


@pytest.mark.parametrize("value", ["0", "-1", "21", "many"])
def test_invalid_number_of_processes_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="backend_processes"):
        settings(backend_processes=value)


@pytest.mark.parametrize("value", ["https://api.example.com", "api.example.com:8443", "*", "::1"])
def test_invalid_allowed_host_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="allowed_hosts"):
        settings(allowed_hosts=value)


def test_keys_are_read_by_name() -> None:
    first, second = "a" * 16, "b:c" * 6
    given = settings(api_keys=f"web:{first}, shop.eu:{second}", flower_api_key="f" * 32)
    assert given.keys == {"web": first, "shop.eu": second, "flower": "f" * 32}
    assert first not in repr(given)
    assert settings(flower_api_key="f" * 32).keys == {}


def test_invalid_key_of_flower_is_rejected() -> None:
    with pytest.raises(ValidationError, match="flower_api_key"):
        settings(flower_api_key="short")


@pytest.mark.parametrize(
    "value",
    [
        "a" * 16,
        f"web:{'a' * 15}",
        f"web shop:{'a' * 16}",
        f"web:{'ä' * 16}",
        f"flower:{'a' * 16}",
        f"web:{'a' * 16},web:{'b' * 16}",
    ],
)
def test_invalid_keys_are_rejected_without_showing_them(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", value)
    with pytest.raises(SystemExit) as exit_:
        read(Settings)
    assert "API_KEYS: " in str(exit_.value.code)
    assert "use name:key" in str(exit_.value.code)
    assert value not in str(exit_.value.code)


@pytest.mark.parametrize("value", [",", " , "])
def test_separators_without_keys_do_not_open_the_api(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", value)
    with pytest.raises(SystemExit, match="API_KEYS: "):
        read(Settings)
