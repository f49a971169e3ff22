"""A cerberus schema from a Spec: what `bentoctl init` asks its questions from."""

from __future__ import annotations

import types
import typing as t

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string"}


def cerberus_schema(model: type[BaseModel]) -> dict[str, dict[str, t.Any]]:
    """One entry per field: type, whether required, default, help, and how a typed text is read."""
    return {name: _entry(field) for name, field in model.model_fields.items()}


def _entry(field: t.Any) -> dict[str, t.Any]:
    checks = tuple(field.metadata)
    annotation = t.Annotated[(field.annotation, *checks)] if checks else field.annotation
    entry: dict[str, t.Any] = {"required": field.is_required(), **_kind(annotation)}
    entry["help_message"] = field.description or ""
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        entry["default"] = list(default) if isinstance(default, tuple) else default
    return entry


def _kind(annotation: t.Any) -> dict[str, t.Any]:
    """The kind of one value. What is typed is text: `coerce` reads it, and says what is wrong."""
    plain, nullable = _plain(annotation)
    origin, arguments = t.get_origin(plain), t.get_args(plain)
    if origin in (list, tuple):
        return {"type": "list", "schema": _kind(arguments[0])}
    if origin is dict:
        return {"type": "dict"}
    kind: dict[str, t.Any] = {"coerce": _reader(annotation)}
    if _is_model(plain):
        kind["help_message"] = "its fields in one line, like {" + _first(plain) + ": value}"
    elif origin is t.Literal:
        kind |= {"type": _TYPES[type(arguments[0])], "allowed": list(arguments)}
    else:
        kind["type"] = _TYPES.get(plain, "string")
    return {**kind, "nullable": True} if nullable else kind


def _plain(annotation: t.Any) -> tuple[t.Any, bool]:
    """The type without its validators, and whether it may be left out."""
    origin, arguments = t.get_origin(annotation), t.get_args(annotation)
    if origin is t.Annotated:
        return _plain(arguments[0])
    if origin in (t.Union, types.UnionType):
        (given,) = [one for one in arguments if one is not type(None)]
        return _plain(given)[0], True
    return annotation, False


def _reader(annotation: t.Any) -> t.Callable[[t.Any], t.Any]:
    adapter: TypeAdapter[t.Any] = TypeAdapter(annotation)
    choices = t.get_args(_plain(annotation)[0]) if _is_literal(annotation) else ()

    def read(given: t.Any) -> t.Any:
        if given is None:
            return None
        named = next((one for one in choices if str(one) == given), given)
        try:
            if _is_model(_plain(annotation)[0]):
                return _fields(adapter, given)
            return adapter.validate_python(named)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    return read


def _fields(adapter: TypeAdapter[t.Any], text: str) -> t.Any:
    """Fields that are typed in one line, checked and as they stand."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not YAML in one line") from error
    adapter.validate_python(fields)
    return fields


def _is_model(plain: t.Any) -> bool:
    return isinstance(plain, type) and issubclass(plain, BaseModel)


def _first(model: type[BaseModel]) -> str:
    return next(iter(model.model_fields))


def _is_literal(annotation: t.Any) -> bool:
    return t.get_origin(_plain(annotation)[0]) is t.Literal
