"""Errors in the WebUI's form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


def body(status: int, message: str) -> dict[str, Any]:
    """`{"error", "detail", "body", "errors"}`: what kind, and what is wrong."""
    kind = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    return {"error": kind, "detail": message, "body": "", "errors": message}
