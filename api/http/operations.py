"""Pieces of OpenAPI operations, with which every API is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
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
IMAGE_KINDS = ("image/jpeg", "image/png", "image/webp")


def controls(text: str) -> Schema:
    """Return the repeated part of control images."""
    return {"type": "array", "items": BINARY, "maxItems": MAX_CONTROLNETS, "description": text}


def operation(
    id: str,
    summary: str,
    answer: Schema | str | None,
    *,
    tag: str,
    further: Mapping[int, Schema] = MappingProxyType({}),
    errors: Iterable[int] = LOOKING,
    error: str = "Error",
    body: Schema | str | None = None,
    parameters: Sequence[Schema] = (),
    open: bool = False,
) -> Schema:
    """Return one method of one path.

    Args:
        id: The name that generated clients give to its function.
        answer: The response with status 200, if any; a name or a schema: JSON of it.
        tag: The group that it is shown in, one of `TAGS` in `api.openapi`.
        further: Status -> response, of what else goes well.
        errors: The statuses of what does not, in the form of the schema named `error`.
        body: Media type -> schema and encoding; a name: JSON of it.
        open: Whether no key is needed.
    """
    if answer is not None and "description" not in answer:
        answer = json(answer)
    good = further if answer is None else {200: answer, **further}
    bad = {code: json(error, ERRORS[code]) for code in errors}
    whole: Schema = {
        "operationId": id,
        "tags": [tag],
        "summary": summary,
        "security": [] if open else SECURITY,
        "responses": {str(code): response for code, response in {**good, **bad}.items()},
    }
    if body is not None:
        content = json(body)["content"] if isinstance(body, str) else body
        whole["requestBody"] = {"required": True, "content": content}
    if parameters:
        whole["parameters"] = [*parameters]
    return whole


def json(schema: Schema | str, text: str = "Done") -> Schema:
    """Return a response in JSON, of a schema or of the one that the document has by this name."""
    described = reference(schema) if isinstance(schema, str) else schema
    return {"description": text, "content": {"application/json": {"schema": described}}}


def file(text: str, *kinds: str) -> Schema:
    """Return a response that is a file of one of these media types."""
    return {"description": text, "content": {kind: {"schema": BINARY} for kind in kinds}}


def events(text: str) -> Schema:
    """Return a response of server-sent events."""
    return {"description": text, "content": {"text/event-stream": {"schema": {"type": "string"}}}}


def reference(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": REFERENCE.format(model=name)}


def list_of(model: type[BaseModel]) -> Schema:
    """Return a list of a model of the document."""
    return {"type": "array", "items": reference(model.__name__)}


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
