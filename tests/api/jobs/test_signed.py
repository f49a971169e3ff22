"""Signed addresses of a job's events and images, which browsers open without a key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.jobs.conftest import ASK, LONG, Client

Make = Callable[..., Client]
ONE, TWO = {"x-api-key": "one"}, {"x-api-key": "two"}


def ended(client: Client, key: dict[str, str], id: str = "mine") -> dict[str, Any]:
    """Return the addresses of a job that has succeeded."""
    body = {"task": "txt2img", "parameters": ASK, "id": id}
    assert client.http.post("/jobs", json=body, headers=key).status_code == 202
    while client.http.get(f"/jobs/{id}", headers=key).json()["state"] != "succeeded":
        time.sleep(0.02)
    return links(client, key, id)


def links(client: Client, key: dict[str, str], id: str = "mine") -> dict[str, Any]:
    answer = client.http.get(f"/jobs/{id}/links", headers=key)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def test_they_need_no_key(make: Make) -> None:
    client = make(api_keys="one,two")
    found = ended(client, ONE)
    assert client.http.get("/jobs/mine/links").status_code == 401
    assert client.http.get("/jobs/mine/links", headers=TWO).status_code == 404
    events = client.http.get(found["events"])
    assert events.headers["content-type"].startswith("text/event-stream")
    name, _, data = events.text.partition("\n")
    job = json.loads(data.removeprefix("data: "))
    assert (name, job["id"]) == ("event: succeeded", "mine")
    for url in (*found["images"], job["images"][0]["url"]):
        assert url.startswith("http://testserver/jobs/mine/images/0?")
        assert client.http.get(url).headers["content-type"] == "image/jpeg"


def test_they_open_nothing_else(make: Make) -> None:
    client = make(api_keys="one,two")
    theirs = ended(client, TWO)["images"][0]
    (mine,) = ended(client, ONE)["images"]  # the same id, of another owner
    ended(client, ONE, "other")
    query = mine.partition("?")[2]
    expires, _, signature = query.partition("&")
    later = f"expires={int(expires.partition('=')[2]) + 1}"
    for wrong in (
        f"/jobs/other/images/0?{query}",
        f"/jobs/mine?{query}",
        f"/jobs/mine/links?{query}",
        f"/jobs/mine/images/0?{later}&{signature}",
        f"/jobs/mine/images/0?{signature}",
        f"/jobs/mine/images/0?{expires}&signature=%C3%A9",
        f"/jobs/mine/images/0?{expires}&signature=",
        f"/jobs/mine/events?{later}&{signature}",
    ):
        assert client.http.get(wrong).status_code == 401, wrong
    assert client.http.delete(f"/jobs/mine?{query}").status_code == 401
    assert mine != theirs
    assert client.http.get(theirs).content != client.http.get(mine).content


def test_they_expire(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(api_keys="one", url_expiry_s=60)
    (url,) = ended(client, ONE)["images"]
    assert client.http.get(url).status_code == 200
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    answer = client.http.get(url)
    assert answer.status_code == 401 and "expired" in answer.json()["error"]


def test_they_end_with_the_key_and_hold_at_another_process(make: Make) -> None:
    (url,) = ended(make(api_keys="one"), ONE)["images"]
    assert make(api_keys="one,two").http.get(url).status_code == 200
    assert make(api_keys="two").http.get(url).status_code == 401


def test_a_job_that_runs_and_a_request_are_followed_too(make: Make) -> None:
    client = make()
    client.post(id="runs", parameters=LONG)
    found = links(client, {}, "runs")
    assert found["images"] == []
    client.http.delete("/jobs/runs")
    assert client.http.get(found["events"]).text.endswith("\n\n")
    client.http.post("/txt2img", json=ASK, headers={"x-request-id": "request"})
    assert "event: succeeded" in client.http.get(links(client, {}, "request")["events"]).text
