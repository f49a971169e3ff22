"""The use of keys with a quota: counted at once, and written down as soon as the disk allows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.http import database, usage
from api.http.usage import Usage


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_database_that_is_locked_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are checked on the event loop, and counted on the thread that ends them."""
    monkeypatch.setattr(database, "PATIENCE_S", 0.02)
    monkeypatch.setattr(usage, "AGAIN_S", 0.02)
    mine, other = Usage(tmp_path), sqlite3.connect(tmp_path / "usage.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    mine.add("key", 3.0)
    mine.add("key", 4.0)
    assert mine.of("key") == 7.0
    other.execute("COMMIT")
    rows = "SELECT units FROM used WHERE key = 'key'"
    until(lambda: other.execute(rows).fetchall() == [(7.0,)])
    assert mine.of("key") == 7.0, "counted once"
    mine.close()
    other.close()


def test_processes_see_each_others_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "LOOK_S", 0.02)
    one, two = Usage(tmp_path), Usage(tmp_path)
    one.add("key", 3.0)
    two.add("key", 4.0)
    until(lambda: one.of("key") == two.of("key") == 7.0)
    one.close()
    two.close()


def test_what_was_counted_last_is_written_before_the_end(tmp_path: Path) -> None:
    first = Usage(tmp_path)
    first.add("key", 3.0)
    first.close()
    again = Usage(tmp_path)
    assert again.of("key") == 3.0
    again.close()
