"""Images that are kept for a while, each behind a signed address that expires.

Processes that share the folder answer each other's addresses: the key that signs lies in it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from runnables.errors import NotReady, UnknownName

logger = logging.getLogger(__name__)
NAME = re.compile(r"[0-9a-f]{32}\.(png|jpeg|webp)")
KEY = "key"
SWEEP_S = 60.0  # between two looks for files that have expired


class Links:
    """The files of one folder.

    Args:
        folder: It is made when the first image is kept.
        seconds: How long an address is valid, and its file kept.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._swept = 0.0

    def keep(self, data: bytes, kind: str) -> str:
        """Keep an image's file, and return `NAME?expires=...&signature=...`.

        Raises:
            NotReady: The folder does not take it.
        """
        name = f"{secrets.token_hex(16)}.{kind}"
        part = self._folder / f"{name}.part"
        try:
            self._sweep()
            signature = self._sign(name, expires := int(time.time() + self._seconds))
            part.write_bytes(data)
            part.rename(self._folder / name)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            logger.error("the folder of images cannot be used: %s", error)
            why = f"the folder of images cannot be used now: {error.strerror}"
            raise NotReady(why, loc=("response_format",)) from error
        return f"{name}?expires={expires}&signature={signature}"

    def find(self, name: str, query: Mapping[str, str]) -> Path:
        """Return the file of an address.

        Raises:
            UnknownName: The address was not made here, or has expired.
        """
        expires, signature = query.get("expires", ""), query.get("signature", "")
        valid = NAME.fullmatch(name) and re.fullmatch(r"[0-9]{1,12}", expires)
        if valid and self._folder.exists() and int(expires) > time.time():
            path, right = self._folder / name, self._sign(name, int(expires))
            if hmac.compare_digest(right.encode(), signature.encode()) and path.exists():
                return path
        raise UnknownName("there is no such image, or its address has expired", loc=("name",))

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

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{name} {expires}".encode(), hashlib.sha256).hexdigest()

    def _sweep(self) -> None:
        """Remove what has expired."""
        now = time.time()
        if now < self._swept + SWEEP_S or not self._folder.exists():
            return
        self._swept = now
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process sweeps, too
                if path.name != KEY and path.stat().st_mtime < now - self._seconds:
                    path.unlink()
