"""Errors in OpenAI's form, from which its SDKs make their exceptions."""

from __future__ import annotations

from typing import Any

from runnables.errors import Loc, StableDiffusionError

#: our status -> OpenAI's (type, code)
KINDS = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "too_large"),
    415: ("invalid_request_error", "invalid_image_file"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
#: our field -> OpenAI's
FIELDS = {"height": "size", "width": "size", "img": "image", "num_images_per_prompt": "n"}


def of(error: StableDiffusionError) -> dict[str, Any]:
    """One of our errors."""
    told = body(error.status, error.message, error.loc)
    code = getattr(error, "code", None)
    return {"error": {**told["error"], "code": code}} if code else told


def body(status: int, message: str, loc: Loc = ()) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    default = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    kind, code = KINDS.get(status, default)
    name = ".".join(map(str, loc))
    if status == 404 and name == "model":
        code = "model_not_found"
    param = FIELDS.get(name, name) or None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
