"""Bodies are checked here. Only pydantic is imported: the queue's front door shares this module."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError, model_validator

from runnables.errors import MAX_NAME, InvalidInput, Loc, shortened_loc

M = TypeVar("M", bound=BaseModel)
Problem = dict[str, object]
#: wrong fields that one answer names; the others are counted
MAX_PROBLEMS = 10
#: values in a body; a body with more is refused before it is checked field by field
MAX_VALUES = 10_000
#: commas in JSON, so values and those in texts: more take too long to parse. With so many, 25 MB
#: take 0.2 s at most, on the event loop: in a thread they would hold it as long, because
#: `json.loads` and pydantic keep Python's lock
MAX_COMMAS = 100_000
MAX_DEPTH = 100  # of lists and objects in one another; Python ends at about 900


class NullIsAbsent(BaseModel):
    """A body in which null means "not sent", as in the WebUI and at OpenAI."""

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


class Invalid(InvalidInput):
    """An error about `count` fields: `problems` has the first ten of them."""

    def __init__(self, problems: Sequence[tuple[Loc, str]], count: int) -> None:
        problems = [(shortened_loc(loc), text) for loc, text in problems]
        loc, text = problems[0]
        name = ".".join(map(str, loc)) or "body"
        rest = f" (and {count - 1} more fields are wrong)" if count > MAX_PROBLEMS else ""
        super().__init__(f"{name}: {text}{rest}", loc=loc)
        self._problems = problems
        self._prefix: Loc = ()

    @property
    def problems(self) -> list[Problem]:
        """The first wrong fields."""
        return [{"loc": [*self._prefix, *loc], "msg": text} for loc, text in self._problems]

    def below(self, prefix: Loc) -> Self:
        """Return this error, for a body in which the fields lie below `prefix`."""
        self._prefix = (*prefix, *self._prefix)
        return super().below(prefix)


def validated(
    model: type[M], content: Any, prefix: Loc = (), names: Mapping[str, str] | None = None
) -> M:
    """Return parsed JSON as a model.

    Args:
        prefix: Where the fields lie in the body.
        names: Our dotted names of fields to the caller's, where those differ.

    Raises:
        Invalid: The fields are named as the caller wrote them.
    """
    check_values(content, prefix)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise Invalid(
            [
                (
                    (*prefix, *_renamed(problem["loc"], names or {})),
                    _message(problem["type"], problem["loc"], model, names or {}) or problem["msg"],
                )
                for problem in found[:MAX_PROBLEMS]  # looking for near names takes long
            ],
            len(found),
        ) from error


def _message(kind: str, loc: Loc, model: type[BaseModel], names: Mapping[str, str]) -> str:
    """Return what to say about a field that the model does not have; "" about other problems."""
    if kind != "extra_forbidden":
        return ""
    fields = list(model.model_fields) if len(loc) == 1 else []
    word = str(loc[-1])
    if len(word) > MAX_NAME:  # comparing would take long
        return "there is no such field"
    near = difflib.get_close_matches(word, fields, n=1) or [
        field for field in fields if len(word) > 2 and word in field
    ]
    hint = ".".join(map(str, _renamed((near[0],), names))) if near else ""
    return f"there is no such field; did you mean {hint}?" if near else "there is no such field"


def check_values(content: Any, prefix: Loc = ()) -> None:
    """Raise InvalidInput for values that no answer could repeat, or too many or too deep ones."""
    count, unseen = 0, [(tuple(prefix), content)]
    while unseen:
        loc, value = unseen.pop()
        if reason := _unrepeatable(value):
            raise Invalid([(loc or ("body",), reason)], 1)
        if len(loc) > MAX_DEPTH:
            raise InvalidInput(f"values lie over {MAX_DEPTH} deep", loc=loc[:1])
        inner = _items(value)
        count += len(inner)
        if count > MAX_VALUES:
            raise InvalidInput(f"there are more than {MAX_VALUES} values", loc=prefix or ("body",))
        unseen.extend(((*loc, name), one) for name, one in inner)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _unrepeatable(value: Any) -> str:
    """Return why JSON or UTF-8 could not say this value; "" where they can."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is too large"
    texts = value if isinstance(value, dict) else [value]
    if not all(_is_text(text) for text in texts if isinstance(text, str)):
        return "a surrogate without its pair is no text"
    return ""


def _is_text(value: str) -> bool:
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _renamed(loc: Loc, names: Mapping[str, str]) -> Loc:
    """Replace the longest beginning of `loc` that has another name by that name."""
    for length in range(len(loc), 0, -1):
        name = names.get(".".join(map(str, loc[:length])))
        if name is not None:
            return (*name.split("."), *loc[length:])
    return loc


def json_object(body: bytes, field: str | None = None) -> dict[str, Any]:
    """Return a JSON object. Raise InvalidInput that names `field`, or the body."""
    loc = (field or "body",)
    if body.count(b",") > MAX_COMMAS:
        raise InvalidInput(f"{loc[0]} has too many values", loc=loc)
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{loc[0]} is not JSON: {error}", loc=loc) from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{loc[0]} must be a JSON object", loc=loc)
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
