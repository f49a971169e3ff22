"""Jobs while their folder is not open: before the model is loaded, and after a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.jobs import events, jobs
from tests.api.jobs.conftest import ASK, Client

Make = Callable[..., Client]
JOB = {"task": "txt2img", "parameters": ASK}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/jobs/one"), ("DELETE", "/jobs/one"), ("GET", "/jobs/one/events")]
)
def test_a_job_that_cannot_be_looked_up_is_not_said_to_be_missing(
    make: Make, method: str, path: str
) -> None:
    """Clients take 404 as final: they forget the job, or send it a second time."""
    client = make(begin=False)
    early = client.http.request(method, path)
    assert early.status_code == 503
    assert int(early.headers["retry-after"]) >= 1
    client.api.start()
    assert client.http.request(method, path).status_code == 404
    client.api.jobs.close()
    assert client.http.request(method, path).status_code == 503


def test_a_synchronous_request_is_known_without_the_folder(make: Make) -> None:
    client = make(begin=False)
    client.http.post("/txt2img", json=ASK, headers={"x-request-id": "one"})
    for method in ("GET", "DELETE"):
        assert client.http.request(method, "/jobs/one").json()["state"] == "succeeded"


def test_events_end_when_the_folder_is_closed(make: Make) -> None:
    client = make(begin=False)

    async def collected() -> list[str]:
        all, key = client.api.jobs, ("", "one")
        return [sent async for sent in events.stream(lambda: all.find(*key), all.hub, key, 0)]

    assert asyncio.run(collected()) == []


def test_a_folder_that_can_be_used_again_is_opened(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The disk was full, or the database locked, at the start alone."""
    monkeypatch.setattr(jobs, "OPEN_AGAIN_S", 0.02)
    (tmp_path / "jobs").write_text("in the way")
    client = make()
    assert client.http.post("/jobs", json=JOB).status_code == 503
    (tmp_path / "jobs").unlink()
    end = time.monotonic() + 300
    while client.http.get("/jobs").status_code == 503:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert client.until(client.post()["id"], "succeeded")["images"]


def test_a_folder_is_not_opened_after_the_stop(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "OPEN_AGAIN_S", 0.02)
    (tmp_path / "jobs").write_text("in the way")
    client = make()
    client.api.jobs.close()
    (tmp_path / "jobs").unlink()
    client.api.jobs._open_folder()
    assert client.http.get("/jobs").status_code == 503
    assert not (tmp_path / "jobs").exists()
