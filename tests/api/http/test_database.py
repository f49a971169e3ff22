"""Files of SQLite that several processes open at once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from api.http import database

SCHEMA = "CREATE TABLE IF NOT EXISTS one (number INTEGER);"


def locked(path: Path) -> sqlite3.Connection:
    """A connection of another process, which has just made the file and is about to write."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (number INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_new_file_that_another_process_opens_just_now_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to change the journal of a file that is locked."""
    other = locked(tmp_path / "new")
    end = threading.Timer(0.3, other.execute, ("COMMIT",))
    end.start()
    connection = database.opened(tmp_path, "new", SCHEMA)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT * FROM one").fetchall() == []
    connection.close()
    end.join()
    other.close()


def test_one_that_stays_locked_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 0.1)
    other = locked(tmp_path / "new")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database.opened(tmp_path, "new", SCHEMA)
    other.close()
