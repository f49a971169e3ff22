"""Which processes are alive: each holds a lock that the kernel releases however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4


class Lease:
    """This process's lock in a folder, and a look at those of others.

    Attributes:
        id: this process's name.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.id = uuid4().hex
        self._file = os.open(self._path(self.id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def alive(self, other: str) -> bool:
        """Whether the process of this name still runs."""
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
        """Give the lock back, as the end of the process would."""
        self._path(self.id).unlink(missing_ok=True)
        os.close(self._file)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
