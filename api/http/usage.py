"""The cost units that each API key has used this month, kept in SQLite for all processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from api.http.database import opened

SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
  key TEXT NOT NULL, month TEXT NOT NULL, units REAL NOT NULL, PRIMARY KEY (key, month)
);
"""
DAY_S = 86400


class Usage:
    """Cost units by key and calendar month (UTC). It is thread-safe.

    Args:
        folder: The folder of `usage.sqlite3`; it is made where it is missing.
        clock: Returns the Unix time.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = opened(folder, "usage.sqlite3", SCHEMA)

    def of(self, key: str) -> float:
        """Return the cost units that this key has used this month."""
        with self._lock:
            query = "SELECT units FROM used WHERE key = ? AND month = ?"
            row = self._connection.execute(query, (key, self._month)).fetchone()
        return float(row[0]) if row else 0.0

    def add(self, key: str, units: float) -> None:
        """Count cost units."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO used VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET units = units + excluded.units",
                (key, self._month, units),
            )

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
