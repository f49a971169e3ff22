"""Signatures that open one thing for a while, without a key.

Processes that share a folder accept each other's signatures: the key that signs lies in it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

KEY = "key"
EXPIRES = re.compile(r"[0-9]{1,12}")


class Signatures:
    """The signatures of one folder's key.

    Args:
        folder: It is made, and the key in it, when something is signed.
        seconds: How long a signature is valid.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds

    def query(self, name: str) -> str:
        """Return the query `expires=...&signature=...` that opens what has this name.

        Raises:
            OSError: The folder cannot be used.
        """
        expires = str(int(time.time() + self._seconds))
        return f"expires={expires}&signature={self._sign(name, expires)}"

    def valid(self, name: str, query: Mapping[str, str]) -> bool:
        """Return whether a query opens what has this name, now."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if not EXPIRES.fullmatch(expires) or int(expires) <= time.time():
            return False
        if not (self._folder / KEY).exists():  # nothing was ever signed
            return False
        return hmac.compare_digest(self._sign(name, expires).encode(), signature.encode())

    @cached_property
    def _key(self) -> bytes:
        """The key; the process that comes first writes it, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / KEY
        if not path.exists():
            part = self._folder / f"{secrets.token_hex(8)}.part"
            part.touch(mode=0o600)
            part.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(part, path)
            part.unlink()
        return path.read_bytes()

    def _sign(self, name: str, expires: str) -> str:
        return hmac.new(self._key, f"{name} {expires}".encode(), hashlib.sha256).hexdigest()
