"""SQLite files that all processes of a service share."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def opened(folder: Path, name: str, schema: str) -> sqlite3.Connection:
    """Return a connection, without transactions of its own, that threads may share under a lock.

    Args:
        folder: It is made where it is missing, for this user alone.
        schema: Statements that make what is not there yet.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(
        folder / name, timeout=30, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(schema)
    return connection
