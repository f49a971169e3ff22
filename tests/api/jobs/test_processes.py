"""Two processes work on one folder, and one goes on with the jobs of another that died.

Each has its own runnable here; they share the folder alone, as two processes do.
"""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api.jobs import runner
from api.jobs.files import ORPHAN_S, Files
from api.jobs.job import Job
from api.jobs.lease import Lease
from api.jobs.runner import ATTEMPTS
from api.jobs.store import Store
from runnables.errors import EngineFailed
from runnables.ticket import Ticket
from tests.api.jobs.conftest import ASK, LONG, Client

Make = Callable[..., Client]


def test_either_process_answers_for_the_others_jobs(make: Make) -> None:
    generating = make()
    generating.post(id="shared", parameters=LONG)
    generating.until("shared", "running")
    other = make(begin=False, jobs_active=1)
    other.api.start()
    other.until("shared", "running")
    end = time.monotonic() + 300
    while other.get("shared")["step"] == 0:
        assert time.monotonic() < end
        time.sleep(0.02)
    other.http.delete("/jobs/shared")
    assert generating.until("shared", "cancelled") == other.until("shared", "cancelled")


def test_a_stop_hands_jobs_to_the_next_process(make: Make, tmp_path: Path) -> None:
    first = make(drain_s=0.0)
    first.post(id="long", parameters=LONG)
    first.until("long", "running")
    first.api.stop()
    left = Store(tmp_path / "jobs")
    job = left.get("", "long")
    left.close()
    assert job is not None and (job.state, job.runner) == ("queued", None)
    assert job.attempts == 0, "handed back, not left behind: a stop is none of its attempts"
    second = make()
    assert second.get("long")["parameters"]["seed"] is not None
    assert second.until("long", "running", "succeeded")["error"] is None
    second.http.delete("/jobs/long")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs")


def claimed(store: Store, folder: Path, id: str = "left", alive: bool = False) -> Job:
    """A job whose process is dead, or still works on it."""
    files = Files(folder / "files")
    parameters = {**ASK, "seed": 1, "scheduler": "ddim"}
    store.add(
        Job(
            id=id,
            owner="",
            task="txt2img",
            parameters=parameters,
            folder=files.new({}),
            steps=2,
        )
    )
    process = Lease(folder / "processes")
    job = store.claim(process.id)
    assert job is not None
    if not alive:
        process.release()
    return job


def test_a_dead_processs_job_is_drawn_again(make: Make, store: Store, tmp_path: Path) -> None:
    claimed(store, tmp_path / "jobs")
    client = make()
    done = client.until("left", "succeeded")
    assert Image.open(io.BytesIO(client.http.get(done["images"][0]["url"]).content)).size
    assert client.api.jobs.store.get("", "left").attempts == 2  # type: ignore[union-attr]


def test_a_living_processs_job_is_left_to_it(make: Make, store: Store, tmp_path: Path) -> None:
    job = claimed(store, tmp_path / "jobs", alive=True)
    parts = make().api.jobs._parts
    assert parts is not None
    parts.runner._tidy()
    there = store.get("", job.id)
    assert there is not None and (there.state, there.runner) == ("running", job.runner)


def test_a_job_that_kills_every_process_fails_in_the_end(
    make: Make, store: Store, tmp_path: Path
) -> None:
    job = claimed(store, tmp_path / "jobs")
    store._connection.execute("UPDATE jobs SET attempts = ?", (ATTEMPTS,))
    failed = make().until(job.id, "failed")
    assert failed["error"]["status"] == 500
    assert str(ATTEMPTS) in failed["error"]["error"]


def test_a_job_that_kills_every_engine_fails_in_the_end(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service stays; without a count, the job would be tried for ever."""
    client = make()
    submit = client.api.runnable.submit

    def fails(*given: Any, **options: Any) -> Ticket:
        ticket = submit(*given, **options)
        ticket.future.exception(timeout=300)
        ended = Ticket(ticket.parameters)
        ended.future.set_exception(EngineFailed("the engine failed"))
        return ended

    monkeypatch.setattr(client.api.runnable, "submit", fails)
    failed = client.until(client.post()["id"], "failed")
    assert failed["error"]["status"] == 500
    assert str(ATTEMPTS) in failed["error"]["error"]


def test_a_job_ends_once(store: Store, tmp_path: Path) -> None:
    """Whoever comes second, with whatever outcome, changes nothing."""
    job = claimed(store, tmp_path / "jobs")
    assert store.end(job, "succeeded", images=[{"seed": 1}])
    assert not store.end(job, "failed", error={"error": "late"})
    store.release(job, begun=True)
    again = store.get("", "left")
    assert again is not None and again.state == "succeeded" and again.images == [{"seed": 1}]
    assert store.claim("anybody") is None


def test_a_claim_by_another_takes_the_end_away(store: Store, tmp_path: Path) -> None:
    job = claimed(store, tmp_path / "jobs")
    store.release(job, begun=True)
    second = store.claim("second")
    assert second is not None and second.attempts == 2
    assert not store.end(job, "succeeded")
    store.release(job, begun=True)
    now = store.get("", "left")
    assert now is not None and (now.state, now.runner) == ("running", "second")
    assert store.end(second, "succeeded")


def test_files_are_there_before_a_job_has_succeeded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make()
    parts = client.api.jobs._parts
    assert parts is not None
    end, found = parts.store.end, list[bool]()

    def ends(job: Job, state: Any, **more: Any) -> bool:
        paths = [parts.files.path(job.folder, image["file"]) for image in more["images"]]
        found.append(state == "succeeded" and all(path.stat().st_size for path in paths))
        return end(job, state, **more)

    monkeypatch.setattr(parts.store, "end", ends)
    client.until(client.post()["id"], "succeeded")
    assert found == [True]


def test_a_job_is_kept_until_its_webhook_is_finished(store: Store) -> None:
    job = Job(id="x", owner="", task="txt2img", parameters={}, steps=1, webhook="https://h/")
    ended = store.add(replace(job, state="succeeded", finished=1.0, webhook_at=time.time()))
    assert store.forget(finished_before=time.time()) == []
    store.webhook_next(ended, None, None)
    assert [one.id for one in store.forget(finished_before=time.time())] == ["x"]


def test_waiting_is_worth_as_much_as_priority(store: Store) -> None:
    base = Job(id="", owner="", task="txt2img", parameters={}, steps=1)
    now = time.time()
    for id, due in {"low-old": now + 9 * 60 - 600, "high-new": now, "low-new": now + 540}.items():
        store.add(replace(base, id=id, due=due))
    order = [job.id for _ in range(3) if (job := store.claim("me"))]
    assert order == ["low-old", "high-new", "low-new"]


def test_leases_tell_the_living_from_the_dead(tmp_path: Path) -> None:
    mine, other = Lease(tmp_path), Lease(tmp_path)
    assert mine.alive(other.id) and mine.alive(mine.id)
    other.release()
    assert not mine.alive(other.id)
    assert not mine.alive("never-lived")
    killed = Lease(tmp_path)
    os.close(killed._file)  # as the kernel does, which leaves the file
    assert not mine.alive(killed.id)
    assert [file.stem for file in tmp_path.iterdir()] == [mine.id]


def test_retention_removes_jobs_and_files(make: Make, tmp_path: Path) -> None:
    client = make()
    id = client.until(client.post()["id"], "succeeded")["id"]
    folder = tmp_path / "jobs" / "files"
    parts = client.api.jobs._parts
    assert parts is not None
    parts.sweep(kept_s=3600)
    assert len(list(folder.iterdir())) == 1
    parts.sweep(kept_s=-1)
    assert list(folder.iterdir()) == []
    assert client.http.get(f"/jobs/{id}").status_code == 404


def test_files_that_no_job_names_are_removed(tmp_path: Path) -> None:
    files = Files(tmp_path)
    kept, orphan, new = files.new({}), files.new({}), files.new({})
    old = time.time() - ORPHAN_S - 1
    for name in (kept, orphan):
        os.utime(tmp_path / name, (old, old))
    assert list(files.orphans({kept})) == [orphan]
    assert new not in set(files.orphans({kept}))


def test_a_folder_that_cannot_be_used_costs_only_the_jobs(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = make(jobs_dir=str(tmp_path / "file" / "jobs"))
    refused = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK})
    assert refused.status_code == 503
    assert "SD_JOBS_DIR" in refused.json()["error"]
    assert client.http.post("/txt2img", json=ASK).status_code == 200


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_refuses_jobs_only(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = make()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        refused = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK})
        assert refused.status_code == 503
        assert "No space left" in refused.json()["error"]
        assert client.http.post("/txt2img", json=ASK).status_code == 200
    assert client.until(client.post()["id"], "succeeded")["images"]


def test_inputs_that_find_no_room_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError):
        files.new({"img": Image.new("RGB", (8, 8))})
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_fails_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make()
    parts = client.api.jobs._parts
    assert parts is not None

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(parts.store, "_all", fails)
        for answer in (client.http.get("/jobs"), client.http.get("/jobs/x")):
            assert answer.status_code == 503
            assert "disk I/O error" in answer.json()["error"]


def test_a_result_waits_for_room_and_is_not_generated_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WRITE_AGAIN_S", 0.01)
    client = make()
    parts = client.api.jobs._parts
    assert parts is not None
    write, tries, generated = parts.files.write, [0], [0]
    submit = client.api.runnable.submit

    def writes(*given: Any) -> None:
        tries[0] += 1
        if tries[0] <= 3:
            full()
        write(*given)

    def counted(*given: Any, **options: Any) -> Ticket:
        generated[0] += 1
        return submit(*given, **options)

    monkeypatch.setattr(parts.files, "write", writes)
    monkeypatch.setattr(client.api.runnable, "submit", counted)
    assert client.until(client.post()["id"], "succeeded")["images"]
    assert (tries[0], generated[0]) == (4, 1)
