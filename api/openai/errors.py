"""Errors in OpenAI's form, from which its SDKs make their exceptions."""

from __future__ import annotations

from typing import Any

from runnables.errors import StableDiffusionError

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


def body(error: StableDiffusionError) -> dict[str, Any]:
    """Return `{"error": {"message", "type", "param", "code"}}`."""
    server = ("server_error", None) if error.status >= 500 else ("invalid_request_error", None)
    kind, code = KINDS.get(error.status, server)
    name = ".".join(map(str, error.loc))
    if error.status == 404 and name == "model":
        code = "model_not_found"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": FIELDS.get(name, name) or None,
            "code": getattr(error, "code", code),
        }
    }
