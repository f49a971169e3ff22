"""API keys: compared by hash, in constant time."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

from runnables.errors import Unauthorized

logger = logging.getLogger(__name__)


class Keys:
    """The keys that are let in. With none configured everybody is.

    Args:
        configured: comma-separated keys, or a file with one SHA-256 in hexadecimal a line.
    """

    def __init__(self, configured: str) -> None:
        if configured and Path(configured).is_file():
            lines = Path(configured).read_text().split()
            self._hashes = {line.lower() for line in lines}
        else:
            keys = [key.strip() for key in configured.split(",")]
            self._hashes = {_hash(key) for key in keys if key}
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
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = _hash(headers.get("x-api-key") or bearer)
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(matches):  # all are compared, so that the time tells nothing
            raise Unauthorized("an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
