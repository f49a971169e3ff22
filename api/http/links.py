"""Images that are kept for a while, each behind a signed address that expires.

Processes that share the folder answer each other's addresses.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from api.http.signatures import KEY, Signatures
from runnables.errors import NotReady, UnknownName

logger = logging.getLogger(__name__)
NAME = re.compile(r"[0-9a-f]{32}\.(png|jpeg|webp)")
SWEEP_S = 60.0  # between two looks for files that have expired


class Links:
    """The files of one folder.

    Args:
        folder: It is made when the first image is kept.
        seconds: How long an address is valid, and its file kept.

    Attributes:
        signatures: They sign the addresses, and may sign others.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.signatures = Signatures(folder, seconds)
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
            query = self.signatures.query(name)
            part.write_bytes(data)
            part.rename(self._folder / name)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            logger.error("the folder of images cannot be used: %s", error)
            why = f"the folder of images cannot be used now: {error.strerror}"
            raise NotReady(why, loc=("response_format",)) from error
        return f"{name}?{query}"

    def find(self, name: str, query: Mapping[str, str]) -> Path:
        """Return the file of an address.

        Raises:
            UnknownName: The address was not made here, or has expired.
        """
        path = self._folder / name
        if NAME.fullmatch(name) and self.signatures.valid(name, query) and path.exists():
            return path
        raise UnknownName("there is no such image, or its address has expired", loc=("name",))

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
