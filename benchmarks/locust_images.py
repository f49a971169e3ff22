"""Load on either host: `locust -f benchmarks/locust_images.py --host http://127.0.0.1:3000`.

Locust is not among the pinned packages: `pip install locust` in an environment of its own.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from locust import HttpUser, between, task

SEEDS = itertools.count()
STEPS = int(os.environ.get("STEPS", "20"))
KEY = os.environ.get("API_KEY", "")


class Artist(HttpUser):
    """Draws, looks, draws again."""

    wait_time = between(1, 2)

    def on_start(self) -> None:
        if KEY:
            self.client.headers["x-api-key"] = KEY

    @task(4)
    def txt2img(self) -> None:
        body = {"prompt": "View of a cyberpunk city", "num_inference_steps": STEPS}
        with self.client.post(
            "/txt2img", json={**body, "seed": next(SEEDS)}, catch_response=True
        ) as response:
            _check(response)

    @task(1)
    def imagine(self) -> None:
        """As the reference architecture's own test calls it."""
        with self.client.get(
            "/imagine", params={"prompt": "a red circle"}, catch_response=True
        ) as response:
            _check(response)


def _check(response: Any) -> None:
    kind = response.headers.get("content-type", "")
    if response.status_code == 429:
        response.failure("429: over capacity")
    elif response.status_code != 200 or not kind.startswith("image/"):
        response.failure(f"{response.status_code} {kind}")
