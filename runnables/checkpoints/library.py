"""A library is a folder of files that requests name; the least recently used are evicted."""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from runnables.errors import ConfigurationError, UnknownName


class Sized(Protocol):
    """An object of this protocol can be kept within a budget."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)
#: of a file, or of a folder and its files: path, inode, size, time of its last change
Identity = tuple[tuple[object, ...], ...]


class Library(Generic[T]):
    """A library is thread-safe; what was evicted stays alive while a request still uses it.

    Args:
        folder: None stands for an empty folder.
        pattern: of the files or folders that count; the name is the path's stem.
        load: called as load(name, path); its errors go to the request that asks first.
        field: the parameter that names it, and the setting of its folder, for messages.
        budget: bytes kept beside the last one used.
    """

    def __init__(
        self,
        folder: str | None,
        pattern: str,
        load: Callable[[str, Path], T],
        *,
        field: tuple[str, str],
        budget: float,
    ) -> None:
        self._field, self._setting = field
        if folder is not None and not Path(folder).expanduser().is_dir():
            raise ConfigurationError(f"{self._setting}={folder}: no such folder")
        self._folder = Path(folder).expanduser() if folder else None
        self._pattern = pattern
        self._load = load
        self._budget = budget
        self._loaded: OrderedDict[str, tuple[Identity, T]] = OrderedDict()
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Return every name with its path, as the folder is now."""
        found = sorted(self._folder.glob(self._pattern)) if self._folder else []
        kept = (path for path in found if path.is_file())  # a pipe would be read for ever
        return {_name(path): path for path in kept}

    def find(self, name: str) -> Path:
        """Return the path of a name, and load nothing.

        Raises:
            UnknownName: the message lists the names that there are.
        """
        path = self.paths().get(name)
        if path is None:
            raise UnknownName(self._unknown(name), loc=(self._field,))
        return path

    def get(self, name: str) -> T:
        """Load it, or return it as it was loaded before.

        Raises:
            UnknownName: the message lists the names that there are. Errors of `load` are passed on.
        """
        path = self.find(name)
        now = identity(path.parent if path.name == "config.json" else path)
        with self._lock:
            if name in self._loaded and self._loaded[name][0] != now:
                del self._loaded[name]
            if name not in self._loaded:
                self._loaded[name] = now, self._load(name, path)
            self._loaded.move_to_end(name)
            while len(self._loaded) > 1 and self.nbytes > self._budget:
                self._loaded.popitem(last=False)
            return self._loaded[name][1]

    @property
    def nbytes(self) -> int:
        """Return the bytes of what is loaded."""
        return sum(one.nbytes for _, one in list(self._loaded.values()))

    def _unknown(self, name: str) -> str:
        names = list(self.paths())
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        known = ", ".join(names) or f"none (the operator's {self._setting} is empty)"
        return f"there is no {self._field.removesuffix('s')} {name!r}{hint} known: {known}"


def identity(path: Path) -> Identity:
    """Return what changes when a file, or any file of a folder, is replaced."""
    return tuple(_state(one) for one in (path, *sorted(path.glob("*"))))


def _state(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError:  # built in, or gone: then the engine refuses it
        return (str(file),)
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns


def _name(path: Path) -> str:
    return path.parent.name if path.name == "config.json" else path.stem
