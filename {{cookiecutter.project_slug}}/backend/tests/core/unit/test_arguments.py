import enum
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field, Json, JsonValue, ValidationError

from app.core.tasks import RunContext
from app.core.tasks.arguments import arguments_of, to_json, to_text


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: int = 0


class Aliased(BaseModel):
    one: int = Field(alias="oneOf")
    text: Json[list[int]] = Field(default=[1])


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    size: int


class Square(BaseModel):
    kind: Literal["square"] = "square"
    size: int


class Basket(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    lines: list[int] = []


def scalars(
    run: RunContext,
    when: datetime,
    price: Decimal | None,
    key: UUID,
    colour: Colour,
    kind: Literal["a", "b"],
    numbers: list[int],
    unique: set[str] | None = None,
) -> None:
    pass


def model(run: RunContext, x: float, point: Point) -> None:
    pass


def mapping(run: RunContext, by_day: dict[date, int]) -> None:
    pass


def nested(run: RunContext, rows: list[list[int]]) -> None:
    pass


def numbers(run: RunContext, one: Literal[1, 2]) -> None:
    pass


def either(run: RunContext, one: int | list[int]) -> None:
    pass


def aliased(run: RunContext, thing: Aliased) -> None:
    pass


def union(run: RunContext, shape: Circle | Square, basket: Basket) -> None:
    pass


def anything(run: RunContext, value: JsonValue) -> None:
    pass


type Ids = list[int]


def alias(run: RunContext, ids: Ids) -> None:
    pass


def defaults(run: RunContext, x: float = 1, point: Point | None = None) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (scalars, True),
        (model, False),
        (mapping, False),
        (nested, False),
        (anything, False),
        (numbers, False),
        (either, False),
        (alias, False),
    ],
)
def test_query_expresses_scalars_and_lists_of_scalars(function: Callable[..., Any], *, fits: bool) -> None:
    assert arguments_of(function, RunContext).fit_query() == fits


def test_arguments_survive_the_json_round_trip() -> None:
    arguments = arguments_of(scalars, RunContext)
    given = {
        "when": datetime.fromisoformat("2026-01-31T12:00:00+00:00"),
        "price": Decimal("1.50"),
        "key": UUID(int=7),
        "colour": Colour.RED,
        "kind": "a",
        "numbers": [1, 2],
    }
    encoded = arguments.encode((), given)
    assert encoded["price"] == "1.50"
    assert arguments.parse((), encoded) == given | {"unique": None}


def test_defaults_are_left_to_the_worker() -> None:
    arguments = arguments_of(defaults, RunContext)
    assert arguments.encode((), {}) == {}
    assert arguments.encode((), {"point": Point(x=1)}) == {"point": {"x": 1, "y": 0}}
    assert arguments.parse((), {}) == {"x": 1, "point": None}


def test_nested_models_are_stored_completely() -> None:
    arguments = arguments_of(union, RunContext)
    basket = Basket()
    basket.lines.append(1)
    given = {"shape": Square(size=2), "basket": basket}
    assert arguments.parse((), arguments.encode((), given)) == given


def test_aliases_and_json_fields_survive_the_json_round_trip() -> None:
    arguments = arguments_of(aliased, RunContext)
    given = {"thing": Aliased.model_validate({"oneOf": 1, "text": "[2]"})}
    assert arguments.parse((), arguments.encode((), given)) == given


def test_argument_given_twice_is_rejected() -> None:
    with pytest.raises(ValidationError, match="args"):
        arguments_of(defaults, RunContext).encode((1,), {"x": 2})


def test_positional_arguments_are_named() -> None:
    assert arguments_of(model, RunContext).encode((1, {"x": 2}), {}) == {"x": 1, "point": {"x": 2, "y": 0}}
    with pytest.raises(ValidationError, match="args"):
        arguments_of(model, RunContext).encode((1, {"x": 2}, 3), {})


def test_nan_within_any_value_is_rejected() -> None:
    def function(run: RunContext, data: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match="not JSON compliant"):
        arguments_of(function, RunContext).encode((), {"data": {"x": float("nan")}})


@pytest.mark.parametrize("given", [{"x": "one"}, {"x": float("nan")}, {"z": 1}])
def test_invalid_arguments_are_rejected(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        arguments_of(defaults, RunContext).encode((), given)


def lists(levels: int) -> Any:
    """Return a list with as many levels."""
    return [] if levels == 1 else [lists(levels - 1)]


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ü 😀"]}, "text", r"a\u0000b", lists(200), None])
def test_json_is_stored_unchanged(value: Any) -> None:
    assert to_json(value) == value


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 31), "2026-01-31"),
        (timedelta(seconds=90), "PT1M30S"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"point": Point(x=1)}, {"point": {"x": 1, "y": 0}}),
        ((1, 2), [1, 2]),
    ],
)
def test_rich_results_become_plain_values(value: Any, stored: Any) -> None:
    assert to_json(value) == stored


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "a\x00b", "\\\x00", {"deep": ["\x00"]}, "\ud800", lists(254), object()]
)
def test_value_that_postgresql_cannot_store_is_rejected(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        to_json(value)


def test_text_that_postgresql_cannot_store_is_escaped() -> None:
    assert to_text("ü 😀") == "ü 😀"
    assert to_text("a\x00b \ud800") == "a\\x00b \\ud800"
