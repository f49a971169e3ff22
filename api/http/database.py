"""SQLite files that all processes of a service share."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

PATIENCE_S = 30.0  # how long another process may have the file locked
AGAIN_S = 0.01


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
        folder / name, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(connection)
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the journal's mode, for which SQLite itself does not wait where the file is locked."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
        time.sleep(AGAIN_S)
