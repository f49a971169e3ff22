"""A cerberus schema from a Spec: what `bentoctl init` asks its questions from."""

from __future__ import annotations

import types
import typing as t

from pydantic import BaseModel

_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string"}


def cerberus_schema(model: type[BaseModel]) -> dict[str, dict[str, t.Any]]:
    """One entry a field: type, whether required, default, help, and the choices of a Literal."""
    return {name: _entry(field) for name, field in model.model_fields.items()}


def _entry(field: t.Any) -> dict[str, t.Any]:
    entry: dict[str, t.Any] = {"required": field.is_required(), **_kind(field.annotation)}
    entry["help_message"] = field.description or ""
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        entry["default"] = list(default) if isinstance(default, tuple) else default
    return entry


def _kind(annotation: t.Any) -> dict[str, t.Any]:
    origin, arguments = t.get_origin(annotation), t.get_args(annotation)
    if origin is t.Annotated:
        return _kind(arguments[0])
    if origin is t.Literal:
        return {"type": "string", "allowed": list(arguments)}
    if origin in (t.Union, types.UnionType):
        given = [one for one in arguments if one is not type(None)]
        return {**_kind(given[0]), "nullable": True}
    if origin in (list, tuple):
        return {"type": "list", "schema": _kind(arguments[0])}
    if origin is dict:
        return {"type": "dict"}
    return {"type": _TYPES.get(annotation, "string")}
