"""What is asked for, checked. Imports nothing but pydantic: the queue's front door shares it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, model_validator

from runnables.errors import InvalidInput, Loc

M = TypeVar("M", bound=BaseModel)


class NullIsAbsent(BaseModel):
    """A body in which null means "not given", as in the WebUI and at OpenAI."""

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


class Invalid(InvalidInput):
    """Several fields may be wrong at once: `problems` lists them all."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        first = problems[0]
        name = ".".join(map(str, first["loc"])) or "body"
        super().__init__(f"{name}: {first['msg']}", loc=first["loc"])
        self.problems = problems


def validated(
    model: type[M], content: Any, prefix: Loc = (), names: Mapping[str, str] | None = None
) -> M:
    """Parsed JSON to a model.

    Args:
        prefix: what the fields lie below.
        names: our dotted names of fields to the caller's, where those differ.

    Raises:
        Invalid: naming the fields as the caller wrote them.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Invalid(
            [
                {"loc": [*prefix, *_told(problem["loc"], names or {})], "msg": problem["msg"]}
                for problem in error.errors(include_url=False, include_context=False)
            ]
        ) from error


def _told(loc: Loc, names: Mapping[str, str]) -> Loc:
    """Its longest beginning that has another name goes by that."""
    for length in range(len(loc), 0, -1):
        name = names.get(".".join(map(str, loc[:length])))
        if name is not None:
            return (*name.split("."), *loc[length:])
    return loc
