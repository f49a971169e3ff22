"""Jobs while the disk is full, the clock jumps, and the database is overwritten."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.jobs import runner
from api.jobs.jobs import Parts
from runnables.ticket import Ticket
from tests.api.jobs.conftest import ASK, Client
from tests.long import LONG
from tests.runnables.images.test_provenance import signing

Make = Callable[..., Client]
N = 200 if LONG else 20
#: SQLite itself writes one line for each end, so that no second one could hide
TRIGGER = """
CREATE TABLE ends (id TEXT);
CREATE TRIGGER ended AFTER UPDATE OF state ON jobs
WHEN NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN INSERT INTO ends VALUES (NEW.id); END;
"""


def parts_of(client: Client) -> Parts:
    parts = client.api.jobs._parts
    assert parts is not None
    return parts


def check_ends(client: Client, count: int, late_fail: bool = True) -> None:
    """Wait until every job has ended, and check that each did once, as it should."""
    for number in range(count):
        found = client.until(f"job-{number}", "succeeded", "failed", timeout=300)
        if number % 10 != 9:
            assert found["state"] == "succeeded", found
        elif late_fail:
            assert found["state"] == "failed", found
    rows = parts_of(client).store._connection.execute("SELECT id FROM ends").fetchall()
    ends = Counter(row[0] for row in rows)
    assert set(ends.values()) == {1} and len(ends) == count


def post(client: Client, number: int) -> int:
    body: dict[str, Any] = {"id": f"job-{number}", "task": "txt2img", "parameters": ASK}
    if number % 10 == 9:
        body["deadline_s"] = 0.001
    return client.http.post("/jobs", json=body).status_code


def test_each_job_ends_once_while_the_clock_jumps_by_hours(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, real, offset = random.Random(3), time.time, [0.0]
    client = make(max_queue_s=3600)
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    parts_of(client).store._clock = lambda: real() + offset[0]
    parts_of(client).store._connection.executescript(TRIGGER)
    for number in range(N):
        assert post(client, number) == 202
        offset[0] = rng.uniform(-5, 5) * 3600
        time.sleep(0.02)
    check_ends(client, N, late_fail=False)  # a clock that goes back gives them hours


def test_each_job_ends_once_through_a_full_disk(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses to grow, as on a full disk, while results are to be written down."""
    monkeypatch.setattr(runner, "WRITE_AGAIN_S", 0.05)
    client = make(max_queue_s=3600)
    connection = parts_of(client).store._connection
    connection.executescript(TRIGGER)
    connection.execute("CREATE TABLE rest (data BLOB)")
    refused = 0
    for number in range(N):
        if number % 10 == 4:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(sqlite3.OperationalError, match="full"):
                connection.execute("INSERT INTO rest VALUES (zeroblob(1000000))")
        while (status := post(client, number)) != 202:
            assert status == 503, "told, and not accepted"
            refused += 1
            connection.execute("PRAGMA max_page_count = 1000000")
    connection.execute("PRAGMA max_page_count = 1000000")
    check_ends(client, N)
    print(f"{N} jobs through a full disk, {refused} refused meanwhile")


def test_jobs_whose_folders_were_removed_end_and_hold_up_no_others(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody has made room on a full disk, or cleans a folder of temporary files."""
    client = make()
    submit = client.api.runnable.submit
    waits = threading.Event()

    def late(*given: Any, **options: Any) -> Ticket:
        waits.wait(300)
        return submit(*given, **options)

    monkeypatch.setattr(client.api.runnable, "submit", late)
    for number in range(4):
        assert post(client, number) == 202
    shutil.rmtree(tmp_path / "jobs" / "files")
    waits.set()
    for number in range(4):
        done = client.until(f"job-{number}", "succeeded", "failed", timeout=60)
        assert done["state"] == "succeeded"
        assert client.http.get(done["images"][0]["url"]).status_code == 200
    shutil.rmtree(tmp_path / "jobs" / "files")
    assert post(client, 4) == 202


def test_an_image_that_is_gone_is_404(make: Make, tmp_path: Path) -> None:
    client = make()
    url = client.until(client.post()["id"], "succeeded")["images"][0]["url"]
    shutil.rmtree(tmp_path / "jobs" / "files")
    gone = client.http.get(url)
    assert gone.status_code == 404
    assert gone.json()["detail"][0]["loc"] == ["index"]


def test_a_job_that_finds_no_room_is_told_why_and_leaves_no_folder(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = make()
    store = parts_of(client).store
    monkeypatch.setattr(store, "claim", lambda *given: None)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    accepted = 0
    body = {"task": "txt2img", "parameters": ASK}
    while (answer := client.http.post("/jobs", json=body)).status_code == 202:
        accepted += 1
    assert answer.status_code == 503
    assert "database or disk is full" in answer.json()["error"]
    assert len(list((tmp_path / "jobs" / "files").iterdir())) == accepted
    store._connection.execute("PRAGMA max_page_count = 1000000")


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda key: key.write_text("no key")], ids=["gone", "damaged"]
)
def test_a_job_whose_image_cannot_be_signed_fails_at_once(
    make: Make, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    signed = signing(tmp_path)
    client = make(c2pa_cert=signed.c2pa_cert, c2pa_key=signed.c2pa_key)
    spoil(tmp_path / "key.pem")
    ended = client.until(client.post()["id"], "succeeded", "failed", timeout=20)
    assert ended["state"] == "failed"
    assert ended["error"]["error"] == "this job failed; the server's log says why"


def test_a_database_that_was_overwritten_is_told(make: Make, tmp_path: Path) -> None:
    """What it held is lost; the service goes on without jobs and says why, after a restart too."""
    client = make()
    client.until(client.post()["id"], "succeeded")
    for file in (tmp_path / "jobs").glob("jobs.sqlite3*"):
        file.write_bytes(b"overwritten " * 5000)
    for _ in range(3):
        answer = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK})
        assert answer.status_code == 503, answer.text
        assert client.http.get("/jobs").status_code == 503
        assert client.http.post("/txt2img", json=ASK).status_code == 200
    again = make()
    answer = again.http.post("/jobs", json={"task": "txt2img", "parameters": ASK})
    assert answer.status_code == 503
    assert "SD_JOBS_DIR" in answer.json()["error"]
