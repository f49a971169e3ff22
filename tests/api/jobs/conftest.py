"""Jobs over tiny real models, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable

ASK: dict[str, Any] = {"prompt": "x", "num_inference_steps": 2}
#: takes long enough to look at while it is drawn
LONG: dict[str, Any] = {"prompt": "x", "num_inference_steps": 150, "num_images_per_prompt": 8}
Start = Callable[..., StableDiffusionRunnable]


class Client:
    """An API and a client of it."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.http = TestClient(api.app(), raise_server_exceptions=False)

    def post(self, **body: object) -> dict[str, Any]:
        """Post a job that must be accepted."""
        answer = self.http.post("/jobs", json={"task": "txt2img", "parameters": ASK, **body})
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def get(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/jobs/{id}").json()
        return found

    def until(self, id: str, *states: str, timeout: float = 300) -> dict[str, Any]:
        """The document once the job is in one of these states."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = self.get(id)
            if found["state"] in states:
                return found
            time.sleep(0.02)
        raise AssertionError(f"still {found}")


@pytest.fixture
def make(start: Start, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """make(**settings) is a client of an API with a runnable and a jobs folder of its own."""
    made: list[Client] = []

    def client(begin: bool = True, **settings: object) -> Client:
        runnable = start("sd1", **{"jobs_dir": str(tmp_path / "jobs"), **settings})
        one = Client(Api(runnable))
        if begin:
            one.api.start()
        made.append(one)
        return one

    yield client
    for one in made:
        one.api.runnable.close()
        one.api.jobs.close()


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()
