"""What a request has drawn is freed with the request, not when Python looks for cycles."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import Api
from runnables.metrics import Metrics
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Result

ASK: dict[str, Any] = {"prompt": "x", "num_inference_steps": 2}


class Seen(Metrics):
    """Sees every result, and holds none."""

    def __init__(self) -> None:
        self.results: list[weakref.ref[Result]] = []

    def spent(self, result: Result, key: str) -> None:
        self.results.append(weakref.ref(result))

    def job_ended(self, *_: object) -> None: ...
    def ended(self, *_: object) -> None: ...
    def load(self, *_: object) -> None: ...
    def memory_used(self, *_: object) -> None: ...
    def waiting_jobs(self, *_: object) -> None: ...
    def job_started(self, *_: object) -> None: ...
    def started(self, *_: object) -> None: ...


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def freed(results: list[weakref.ref[Result]]) -> bool:
    """The last threads may still be on their way out of the functions that held them."""
    end = time.monotonic() + 300
    while any(result() is not None for result in results) and time.monotonic() < end:
        time.sleep(0.02)
    return all(result() is None for result in results)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("path", ["/txt2img", "/jobs"])
def test_images_are_freed(
    start: Callable[..., StableDiffusionRunnable], tmp_path: Any, path: str
) -> None:
    seen = Seen()
    api = Api(start("sd1", jobs_dir=str(tmp_path)), seen)
    api.start()
    client = TestClient(api.app())
    body = ASK if path == "/txt2img" else {"task": "txt2img", "parameters": ASK}
    for _ in range(3):
        assert client.post(path, json=body).status_code in (200, 202)
    end = time.monotonic() + 300
    while len(seen.results) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(seen.results) == 3
    assert freed(seen.results)
    api.stop()
