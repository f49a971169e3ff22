"""Pieces of OpenAPI operations, with which every API is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from runnables.parameters import MAX_CONTROLNETS

Schema = dict[str, Any]

ERRORS = {
    400: "A field is wrong, and named",
    401: "No API key, or a wrong one",
    403: "The key is not an operator's",
    404: "No such model, sampler or job",
    408: "The body did not arrive in time",
    409: "It does not fit the state of what is there",
    413: "Too many bytes or pixels",
    415: "Not an image",
    429: "Too much work is waiting, or the key's limit is reached; see `Retry-After`",
    499: "It was cancelled by its id",
    500: "This image failed",
    503: "The model is loading or the service is stopping",
    504: "The deadline passed",
}
#: what a request that generates can end with
GENERATING = tuple(status for status in ERRORS if status not in (403, 409))
#: what one that only looks can
LOOKING = (401, 503)
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"key": []}, {"basic": []}]
SECURITY_SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as password"},
}
REFERENCE = "#/components/schemas/{model}"
HINT = "What to know about an image of a small demo model; it may know none of the words"
BINARY: Schema = {"type": "string", "format": "binary"}


def controls(text: str) -> Schema:
    """Return the repeated part of control images."""
    return {"type": "array", "items": BINARY, "maxItems": MAX_CONTROLNETS, "description": text}


def operation(
    id: str,
    tag: str,
    summary: str,
    answers: Schema,
    *,
    errors: Iterable[int] = LOOKING,
    error: str = "Error",
    body: Schema | None = None,
    parameters: list[Schema] | None = None,
    open: bool = False,
) -> Schema:
    """Return one method of one path.

    Args:
        id: The name that generated clients give to its function.
        tag: The group that it is shown in, one of `TAGS` in `api.openapi`.
        answers: Status -> response, of what goes well.
        errors: The statuses of what does not, in the form of the schema named `error`.
        body: Media type -> schema and encoding.
        open: Whether no key is needed.
    """
    described = {str(code): json(reference(error), ERRORS[code]) for code in errors}
    whole: Schema = {
        "operationId": id,
        "tags": [tag],
        "summary": summary,
        "security": [] if open else SECURITY,
        "responses": {**answers, **described},
    }
    if body is not None:
        whole["requestBody"] = {"required": True, "content": body}
    if parameters:
        whole["parameters"] = parameters
    return whole


def json(schema: Schema, text: str = "Done") -> Schema:
    """Return a response in JSON."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def reference(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": REFERENCE.format(model=name)}


def components(
    models: Mapping[str, type[BaseModel]], mode: Literal["validation", "serialization"]
) -> Schema:
    """Return the schemas of models by these names, and of the models inside them by their own.

    Args:
        mode: What is described: what may be sent (`validation`), or what is answered.
    """
    found: Schema = {}
    for name, model in models.items():
        schema = model.model_json_schema(ref_template=REFERENCE, mode=mode)
        found |= schema.pop("$defs", {})
        found[name] = {**schema, "title": name}
    return found


def fields_of(model: type[BaseModel]) -> Schema:
    """Return the schemas of a model's fields, which refer to the models inside it."""
    fields: Schema = model.model_json_schema(ref_template=REFERENCE)["properties"]
    return fields


def is_plain(schema: Schema) -> bool:
    """Return whether a field can stand in a query: a list or an object cannot."""
    every = (schema, *schema.get("anyOf", ()))
    return not any("$ref" in one or one.get("type") in ("array", "object") for one in every)


def query(name: str, schema: Schema, text: str, required: bool = False) -> Schema:
    """Return a field of the query."""
    where = {"name": name, "in": "query", "required": required}
    return {**where, "schema": schema, "description": text}


def path_field(name: str, text: str) -> Schema:
    """Return a field of the path."""
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}
