"""API keys: compared by hash, in constant time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from runnables.errors import ConfigurationError, Unauthorized

logger = logging.getLogger(__name__)


class Keys:
    """The keys that are let in. With none configured everybody is.

    Args:
        configured: comma-separated keys, or a file with one SHA-256 in hexadecimal a line.

    Raises:
        ConfigurationError: something is configured, but no key is in it.
    """

    def __init__(self, configured: str) -> None:
        self._hashes = _read(configured)
        if configured and not self._hashes:  # an empty file must not open the door
            raise ConfigurationError("SD_API_KEYS holds no key", loc=("SD_API_KEYS",))
        if not self._hashes:
            logger.warning(
                "SD_API_KEYS is not set: the service is open to everybody who reaches it"
            )

    def check(self, headers: Mapping[str, str]) -> None:
        """Accepts `Authorization: Bearer KEY` and `x-api-key: KEY`.

        Raises:
            Unauthorized: keys are configured and this is none of them.
        """
        if not self._hashes:
            return
        given = _hash(headers.get("x-api-key") or _bearer(headers.get("authorization", "")))
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(matches):  # all are compared, so that the time tells nothing
            raise Unauthorized("an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY")


def _read(configured: str) -> set[str]:
    if os.path.isfile(configured):  # pathlib's would raise for a list longer than a file name
        return {line.lower() for line in Path(configured).read_text().split()}
    keys = (key.strip() for key in configured.split(","))
    return {_hash(key) for key in keys if key}


def _bearer(authorization: str) -> str:
    """The token; the scheme's name is case-insensitive (RFC 9110, section 11.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
