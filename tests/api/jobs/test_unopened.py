"""Jobs while their folder is not open: before the model is loaded, and after a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from api.jobs import events
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
        jobs = client.api.jobs
        return [
            one
            async for one in events.stream(lambda: jobs.find("", "one"), jobs.hub, ("", "one"), 0)
        ]

    assert asyncio.run(collected()) == []
