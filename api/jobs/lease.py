"""Locks that show which processes are alive: the kernel releases them however a process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4


class Lease:
    """The lock of this process in a folder, and a look at the locks of others.

    Attributes:
        id: The name of this process.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.id = uuid4().hex
        self._file = os.open(self._path(self.id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def alive(self, other: str) -> bool:
        """Return whether the process of this name still runs."""
        if other == self.id:
            return True
        try:
            file = os.open(self._path(other), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            self._path(other).unlink(missing_ok=True)
            return False
        finally:
            os.close(file)

    def release(self) -> None:
        """Release the lock, as the end of the process would."""
        self._path(self.id).unlink(missing_ok=True)
        os.close(self._file)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
