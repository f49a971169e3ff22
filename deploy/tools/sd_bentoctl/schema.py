"""A cerberus schema from a Spec: what `bentoctl init` asks its questions from."""

from __future__ import annotations

import types
import typing as t

from pydantic import BaseModel, TypeAdapter, ValidationError

_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string"}


def cerberus_schema(model: type[BaseModel]) -> dict[str, dict[str, t.Any]]:
    """One entry per field: type, whether required, default, help, and how a typed text is read."""
    return {name: _entry(field) for name, field in model.model_fields.items()}


def _entry(field: t.Any) -> dict[str, t.Any]:
    annotation = t.Annotated[(field.annotation, *field.metadata, field)]
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
    if origin is t.Literal:
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
            return adapter.validate_python(named)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    return read


def _is_literal(annotation: t.Any) -> bool:
    return t.get_origin(_plain(annotation)[0]) is t.Literal
