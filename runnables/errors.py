"""Every error that callers see is declared here, with the HTTP status each host answers with.

    StableDiffusionError            500
    +-- InvalidInput                400   a parameter is wrong; `loc` names the field
    |   +-- PayloadTooLarge         413   too many bytes or pixels
    |   +-- UnsupportedImage        415   the upload is not an image that can be read
    |   +-- UnknownName             404   no such model, sampler or job
    |   +-- Conflict                409   the id names a job with another body, or one not finished
    +-- Unauthorized                401   no API key, or a wrong one
    +-- Forbidden                   403   not for this API key, or not for pages of other sites
    +-- Cancelled                   499   the client went away or asked to stop
    +-- OverCapacity                429   refused at admission; `retry_after` says when to come back
    +-- NotReady                    503   loading, or draining before a stop
    |   +-- EngineFailed            503   the engine died, or stands still
    +-- DeadlineExceeded            504   the request's deadline passed before its last step
    +-- GenerationFailed            500   this request alone failed (not a number, out of memory)
    +-- ConfigurationError          503   settings or a model are wrong: the operator has to mend it

Messages of every class but the base are written for the caller. Anything else that is raised is an
internal error: hosts log it and answer 500 without its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

Loc = Sequence[str | int]
#: characters of an error's text, and of a name in it: it may repeat what a caller has sent
MAX_MESSAGE, MAX_NAME = 4000, 200


class StableDiffusionError(Exception):
    """This is the base of all errors; `status` is the HTTP status a host answers with."""

    status = 500

    def __init__(self, message: str, *, loc: Loc = ()) -> None:
        super().__init__(message)
        self.message = message
        self.loc = tuple(loc)

    @property
    def problems(self) -> list[dict[str, object]]:
        """Return the wrong fields and what is wrong with each; most errors have one."""
        return [{"loc": list(self.loc), "msg": self.message}]

    def below(self, prefix: Loc) -> Self:
        """Return this error, for a body in which the fields lie below `prefix`."""
        self.loc = (*prefix, *self.loc)
        return self


class InvalidInput(StableDiffusionError):
    """A parameter is missing, unknown or out of range."""

    status = 400

    def __init__(self, message: str, *, loc: Loc = ()) -> None:
        super().__init__(shortened(message, MAX_MESSAGE), loc=shortened_loc(loc))


class PayloadTooLarge(InvalidInput):
    """The body, or the image in it, is larger than the operator allows."""

    status = 413


class UnsupportedImage(InvalidInput):
    """The upload cannot be read as an image."""

    status = 415


class UnknownName(InvalidInput):
    """There is no model, sampler or job of this name."""

    status = 404


class Conflict(InvalidInput):
    """The request does not fit the present state of what it names."""

    status = 409


class Unauthorized(StableDiffusionError):
    """The API key is missing, or is not known."""

    status = 401


class Forbidden(StableDiffusionError):
    """This is for operators' keys, or not for pages of other sites."""

    status = 403


class Cancelled(StableDiffusionError):
    """The request was cancelled before its image was finished."""

    status = 499


class OverCapacity(StableDiffusionError):
    """The request was refused; `retry_after` is the estimated wait in whole seconds, at least 1."""

    status = 429

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = max(1, round(retry_after))


class NotReady(StableDiffusionError):
    """The model is still loading, or the service is draining."""

    status = 503


class EngineFailed(NotReady):
    """The engine died or stood still while it worked on this request, perhaps because of it."""


class DeadlineExceeded(StableDiffusionError):
    """`deadline_s` passed before the last step."""

    status = 504


class GenerationFailed(StableDiffusionError):
    """This request failed while it was generated; the others of its batch go on."""


class ConfigurationError(StableDiffusionError):
    """Settings or a model folder are wrong.

    Raised at the start, the service does not start. Raised for a request that names a further
    model, the request is not at fault, and works once the operator has mended the model.
    """

    status = 503


def shortened(text: str, most: int) -> str:
    """Return a text, without its end where it is longer than this."""
    return text if len(text) <= most else f"{text[:most]}..."


def shortened_loc(loc: Loc) -> Loc:
    """Return where a field is, by names that are not longer than an answer may repeat."""
    return [shortened(one, MAX_NAME) if isinstance(one, str) else one for one in loc]


def error_body(error: StableDiffusionError) -> dict[str, object]:
    """Return the JSON that hosts answer with: `{"error": ..., "detail": [{"loc", "msg"}]}`."""
    return {"error": error.message, "detail": error.problems}
