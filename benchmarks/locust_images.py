"""This locust file puts a load on either host of the service.

    make load-tools
    .venv-load/bin/locust -f benchmarks/locust_images.py --host http://127.0.0.1:3000 \
        --headless -u 16 -r 4 -t 2m

Four of five requests are `/txt2img` (STEPS, default 20), one is `/imagine` with the model's own
number of steps; `-T txt2img` and `-T imagine` take one kind only. API_KEY is the key, if any. What
is no image is a failure, with the service's words; 429 says that the host has more than it can do.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from locust import HttpUser, between, tag, task

SEEDS = itertools.count()
STEPS = int(os.environ.get("STEPS", "20"))
KEY = os.environ.get("API_KEY", "")


class Artist(HttpUser):
    """This user requests an image, looks at it, and requests another."""

    wait_time = between(1, 2)

    def on_start(self) -> None:
        if KEY:
            self.client.headers["x-api-key"] = KEY

    @tag("txt2img")
    @task(4)
    def txt2img(self) -> None:
        body = {"prompt": "View of a cyberpunk city", "num_inference_steps": STEPS}
        with self.client.post(
            "/txt2img", json={**body, "seed": next(SEEDS)}, catch_response=True
        ) as response:
            _check(response)

    @tag("imagine")
    @task(1)
    def imagine(self) -> None:
        """Request an image as the reference architecture's own test does."""
        with self.client.get(
            "/imagine",
            params={"prompt": "a red circle"},
            name="/imagine",
            catch_response=True,
        ) as response:
            _check(response)


def _check(response: Any) -> None:
    kind = response.headers.get("content-type", "")
    if response.status_code == 429:
        response.failure("429: over capacity")  # one row, though each answer reports another wait
    elif response.status_code >= 400:
        response.failure(f"{response.status_code}: {response.text[:200]}")
    elif response.status_code == 200 and not kind.startswith("image/"):
        response.failure(f"no image but {kind!r}")
