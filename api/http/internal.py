"""Errors that nobody planned: the log has them whole, and the caller gets a number."""

from __future__ import annotations

import logging
import secrets

from runnables.errors import StableDiffusionError

logger = logging.getLogger(__name__)


def internal(error: BaseException) -> StableDiffusionError:
    """Log an error, and return one without its text, which may name what is inside."""
    number = secrets.token_hex(4)
    logger.error("internal error %s", number, exc_info=error)
    return StableDiffusionError(f"internal error {number}; the server's log has the details")
