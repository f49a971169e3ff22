"""Repeats over HTTP: two endpoints share a result, the answer says so, and it costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from api.app import Api
from runnables.metrics import Metrics
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Progress, Result

ASK: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 3, "seed": 5, "scheduler": "ddim"}


class Spent(Metrics):
    """Notes the results that are counted."""

    def __init__(self) -> None:
        self.results: list[tuple[str | None, float]] = []

    def spent(self, result: Result, key: str) -> None:
        self.results.append((result.cache, result.cost_units))

    def ended(self, *_: object) -> None: ...
    def load(self, *_: object) -> None: ...
    def memory_used(self, *_: object) -> None: ...
    def waiting_jobs(self, *_: object) -> None: ...
    def started(self, *_: object) -> None: ...


def test_two_endpoints_share_a_result(
    start: Callable[..., StableDiffusionRunnable], tmp_path: Path
) -> None:
    runnable = start("sd1", repeats_mb=8, jobs_dir=str(tmp_path))
    spent, gate, begun = Spent(), threading.Event(), threading.Event()

    def hold(_: Progress) -> None:
        begun.set()
        assert gate.wait(300)

    with TestClient(Api(runnable, spent).app()) as client:
        png = {"accept": "image/png"}
        answers: list[Any] = []
        post = threading.Thread(
            target=lambda: answers.append(client.post("/txt2img", json=ASK, headers=png))
        )
        first = runnable.submit(TextToImage(**ASK), on_step=hold)
        assert begun.wait(300)
        post.start()
        assert runnable._repeats is not None
        (shared,) = runnable._repeats._under_way.values()
        while len(shared.members) < 2 and post.is_alive():
            post.join(0.01)
        gate.set()
        post.join(300)
        assert first.future.result(timeout=300).cache is None
        (joined,) = answers
        imagined = client.get("/imagine", params={**ASK, "scheduler": "ddim"})
        openai = client.post(
            "/v1/images/generations", json={**ASK, "output_format": "png", "size": "64x64"}
        )
        other = client.post("/txt2img", json={**ASK, "seed": 6}, headers=png)
    assert [one.status_code for one in (joined, imagined, openai, other)] == [200] * 4
    caches = [one.headers.get("cache") for one in (joined, imagined, openai, other)]
    assert caches == ["joined", "hit", "hit", None]
    assert joined.content == imagined.content
    assert imagined.headers["seed"] == "5"
    assert [cache for cache, _ in spent.results] == caches
    assert [units > 0 for _, units in spent.results] == [False, False, False, True]
