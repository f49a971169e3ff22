"""Errors in the WebUI's form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from runnables.errors import StableDiffusionError


def body(error: StableDiffusionError) -> dict[str, Any]:
    """Return `{"error", "detail", "body", "errors"}`: the kind, and what is wrong."""
    kind = HTTPStatus(error.status).phrase if error.status in set(HTTPStatus) else "Error"
    return {"error": kind, "detail": error.message, "body": "", "errors": error.message}
