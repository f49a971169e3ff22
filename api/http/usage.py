"""The cost units that each API key has used this month, kept in SQLite for all processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from api.http.database import opened

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # how often to look for what other processes have counted
AGAIN_S = 5.0  # between tries to write, where the disk is full or the file is locked
SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
  key TEXT NOT NULL, month TEXT NOT NULL, units REAL NOT NULL, PRIMARY KEY (key, month)
);
"""
DAY_S = 86400


class Usage:
    """Cost units by key and calendar month (UTC). It is thread-safe.

    They are counted in memory, as callers must not wait for a disk: an event loop asks for them,
    and the thread that ends requests adds to them. A thread of its own writes them down, and reads
    what other processes have written.

    Args:
        folder: The folder of `usage.sqlite3`; it is made where it is missing.
        clock: Returns the Unix time.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], float] = {}  # by key and month
        self._unwritten: dict[tuple[str, str], float] = {}
        self._wake, self._closed = threading.Event(), threading.Event()
        self._connection = opened(folder, "usage.sqlite3", SCHEMA)
        self._read()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def of(self, key: str) -> float:
        """Return the cost units that this key has used this month.

        Those that other processes have counted are seen about a second later.
        """
        at = key, self._month
        with self._lock:
            return self._written.get(at, 0.0) + self._unwritten.get(at, 0.0)

    def add(self, key: str, units: float) -> None:
        """Count cost units."""
        at = key, self._month
        with self._lock:
            self._unwritten[at] = self._unwritten.get(at, 0.0) + units
        self._wake.set()

    def close(self) -> None:
        """Write down what was counted last, and close the file."""
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            last = self._closed.is_set()
            try:
                self._write()
                self._read()
            except Exception:
                logger.exception("the use of keys cannot be written down; trying again")
                self._closed.wait(AGAIN_S)
        self._connection.close()

    def _write(self) -> None:
        with self._lock:
            counted = list(self._unwritten.items())
        for at, units in counted:
            [(total,)] = self._connection.execute(
                "INSERT INTO used VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET units = units + excluded.units RETURNING units",
                (*at, units),
            ).fetchall()
            with self._lock:
                self._written[at] = total
                rest = self._unwritten.pop(at) - units
                if rest > 0:
                    self._unwritten[at] = rest

    def _read(self) -> None:
        month = self._month
        query = "SELECT key, units FROM used WHERE month = ?"
        rows = self._connection.execute(query, (month,)).fetchall()
        with self._lock:
            self._written = {(key, month): units for key, units in rows}

    @property
    def month_left_s(self) -> float:
        """Return the seconds until the next month begins."""
        now = self._clock()
        month, day = time.gmtime(now).tm_mon, now - now % DAY_S
        while time.gmtime(day).tm_mon == month:
            day += DAY_S
        return day - now

    @property
    def _month(self) -> str:
        return time.strftime("%Y-%m", time.gmtime(self._clock()))
