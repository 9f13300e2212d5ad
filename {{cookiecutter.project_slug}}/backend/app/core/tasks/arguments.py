"""Arguments of tasks: a pydantic model from the function's signature, and values as JSON that PostgreSQL can store."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaMode
from pydantic_core import PydanticSerializationError, to_jsonable_python

from app.core.errors import ConfigurationError

RESERVED = {"wait", "delay"}  # query parameters of the API that are not arguments
SCALARS = {"string", "integer", "number", "boolean", "null"}


class Arguments(BaseModel):
    """Base of every task's model of arguments; a field is an argument."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), hide_input_in_errors=True)
    model_config |= ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants")  # which `to_json` rejects

    @classmethod
    def parse(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, as the types of the signature.

        Raises:
            pydantic.ValidationError: an argument is missing, unknown or invalid.
        """
        return dict(cls.model_validate(cls.named(args, kwargs), by_alias=True, by_name=True))

    @classmethod
    def encode(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, validated and as JSON; raises as `parse` and `to_json`."""
        return cls.model_validate(cls.named(args, kwargs), by_alias=True, by_name=True).dump()

    def dump(self) -> dict[str, Any]:
        """Return the given arguments as JSON; raises as `to_json`.

        Models are complete, but defaults of the task are left to the worker, so that an older worker accepts a call of
        a newer API.
        """
        return dict(to_json(self.model_dump(mode="json", round_trip=True, include=self.model_fields_set)))

    @classmethod
    def named(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return positional and keyword arguments as one mapping, not validated."""
        positional = dict(zip(cls.model_fields, args, strict=False))
        surplus = args[len(cls.model_fields) :] or [name for name in positional if name in kwargs]
        return {**positional, **kwargs, **({"args": surplus} if surplus else {})}

    @classmethod
    def fit_query(cls) -> bool:
        """Return whether a query string can express the arguments: scalars and lists of scalars."""
        schema = cls.model_json_schema()
        return all(_fits_query(field, schema.get("$defs", {})) for field in schema["properties"].values())


def _fits_query(field: Mapping[str, Any], definitions: Mapping[str, Any], *, item: bool = False) -> bool:
    if "$ref" in field:
        target = definitions[field["$ref"].rpartition("/")[2]]  # FastAPI does not see that such a type is a list
        return target.get("type") != "array" and _fits_query(target, definitions, item=item)
    if "anyOf" in field:
        kinds = {each.get("type") for each in field["anyOf"]}
        mixed = "array" in kinds and not kinds <= {"array", "null"}  # one value of a query would be a list
        return not mixed and all(_fits_query(each, definitions, item=item) for each in field["anyOf"])
    if "enum" in field or "const" in field:  # a query has text only, and a literal is not converted
        return all(isinstance(value, str) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array" and not item:
        return "prefixItems" not in field and _fits_query(field.get("items", {}), definitions, item=True)
    return field.get("type") in SCALARS


def arguments_of(function: Callable[..., Any], context: type) -> type[Arguments]:
    """Return the model of a task's arguments: the parameters of `function` after the first, which is a `context`.

    Raises:
        ConfigurationError: the first parameter is not a `context`, or another parameter or the result is invalid.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise invalid(function, f"{error} (import the type at run time, not under TYPE_CHECKING)") from None
    parameters = list(signature.parameters.values())
    if not parameters or parameters.pop(0).annotation is not context:
        raise invalid(function, f"the first argument is not of type {context.__name__} (add run: {context.__name__})")
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise invalid(function, f"argument {parameter} cannot be passed by name (use a list or a dict)")
        if parameter.name in RESERVED or parameter.name.startswith("_") or hasattr(Arguments, parameter.name):
            raise invalid(function, f"argument {parameter.name}: the name is reserved (rename it)")
        if parameter.annotation is parameter.empty:
            raise invalid(function, f"argument {parameter.name} has no type (annotate it)")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
        schema = _json_schema(function, f"argument {parameter.name}", parameter.annotation, "validation")
        if '"writeOnly": true' in json.dumps(schema):
            problem = f"argument {parameter.name}: a secret would be stored as asterisks (read it from the settings)"
            raise invalid(function, problem)
    if signature.return_annotation not in {signature.empty, Any}:
        _json_schema(function, "result", signature.return_annotation, "serialization")
    return create_model(function.__name__, __base__=Arguments, **fields)


def invalid(function: Callable[..., Any], problem: str) -> ConfigurationError:
    """Return the error for a task that cannot be registered, with its file and name."""
    file = function.__module__.replace(".", "/")
    return ConfigurationError(f"{file}.py: task {function.__name__}: {problem}")


def _json_schema(function: Callable[..., Any], subject: str, annotation: Any, mode: JsonSchemaMode) -> dict[str, Any]:
    try:
        return TypeAdapter(annotation).json_schema(mode=mode)
    except PydanticUserError as error:
        reason = str(error.message).splitlines()[0].rstrip(".")
        raise invalid(function, f"{subject}: {reason} (use a type with a JSON form)") from None


def describe(errors: Iterable[Mapping[str, Any]]) -> str:
    """Return one line for the errors of pydantic's `ValidationError`, without values."""
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)


def to_json(value: Any) -> Any:
    """Return `value` as JSON that PostgreSQL can store; models, dates, decimals and the like become plain values.

    Raises:
        TypeError: a part of it has no JSON form.
        ValueError: it contains a NaN, an infinity, a NUL character or a lone surrogate, or is nested too deep: pydantic
            writes 255 levels, of which a page of runs needs four.
    """
    try:
        text = json.dumps(to_jsonable_python([[[[value]]]]), allow_nan=False, ensure_ascii=False)
    except PydanticSerializationError as error:
        raise TypeError(str(error)) from error
    if "\\u0000" in text.replace("\\\\", ""):  # escaped backslashes begin no escape
        message = "PostgreSQL cannot store a NUL character in JSON"
        raise ValueError(message)
    return json.loads(text.encode())[0][0][0][0]


def to_text(text: str) -> str:
    """Return `text` with NUL characters and lone surrogates escaped, which PostgreSQL cannot store."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
