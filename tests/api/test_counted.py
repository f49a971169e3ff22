"""Which requests are counted for which key: by its name, never by the key itself."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from api.http.keys import new
from runnables.metrics import Metrics
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import GeneratedImage, Result
from tests.runnables.images.test_provenance import signing

ASK: dict[str, Any] = {"prompt": "x", "num_inference_steps": 1, "height": 16, "width": 16}


class Counts(Metrics):
    """Notes the ends of requests and the images, by key."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int, str]] = []
        self.results: list[tuple[str | None, str]] = []

    def ended(self, task: str, status: int, key: str) -> None:
        self.requests.append((task, status, key))

    def spent(self, result: Result, key: str) -> None:
        self.results.append((result.parameters.model, key))

    def job_ended(self, *_: object) -> None: ...
    def load(self, *_: object) -> None: ...
    def memory_used(self, *_: object) -> None: ...
    def waiting_jobs(self, *_: object) -> None: ...
    def job_started(self, *_: object) -> None: ...
    def started(self, *_: object) -> None: ...


def test_requests_refusals_and_jobs_count_for_their_key(
    start: Callable[..., StableDiffusionRunnable], tmp_path: Path
) -> None:
    secret, key = new("mobile", rate=3)
    (tmp_path / "keys").write_text(key.line())
    runnable = start("sd1", api_keys=str(tmp_path / "keys"), jobs_dir=str(tmp_path / "jobs"))
    counts = Counts()
    api = Api(runnable, counts)
    model = str(runnable.models()[0]["name"])
    with TestClient(api.app(), headers={"x-api-key": secret}) as client:
        api.start()
        assert client.post("/txt2img", json=ASK).status_code == 200
        assert client.post("/txt2img", json={}).status_code == 400
        job = client.post("/jobs", json={"task": "txt2img", "parameters": ASK})
        assert client.post("/txt2img", json=ASK).status_code == 429
        assert client.post("/txt2img", json=ASK, headers={"x-api-key": "?"}).status_code == 401
        end = time.monotonic() + 300
        while len(counts.results) < 2 and time.monotonic() < end:
            client.get(job.headers["location"])
            time.sleep(0.05)
        api.stop()
    named = [("txt2img", status, "mobile") for status in (200, 400, 429)]
    assert counts.requests == [*named, ("txt2img", 401, "")]
    assert counts.results == [(model, "mobile")] * 2


def picture(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def test_each_request_is_counted_once_as_it_was_answered(
    start: Callable[..., StableDiffusionRunnable], tmp_path: Path
) -> None:
    signed = signing(tmp_path)
    runnable = start("sd1", c2pa_cert=signed.c2pa_cert, c2pa_key=signed.c2pa_key)
    counts = Counts()
    single = {"data": base64.b64encode(picture()).decode()}
    batch = {"upscaler_1": "Lanczos", "imageList": [single] * 2}
    edit = {"prompt": "x", "size": "64x64", "stream": "true"}
    with TestClient(Api(runnable, counts).app(), raise_server_exceptions=False) as client:
        assert client.post("/sdapi/v1/extra-batch-images", json=batch).status_code == 200
        image = {"image": ("a.png", picture("RGBA"), "image/png")}
        assert "completed" in client.post("/v1/images/edits", data=edit, files=image).text
        (tmp_path / "key.pem").unlink()
        assert client.post("/txt2img", json=ASK).status_code == 500
        client.post("/v1/images/edits", data=edit, files=image)
    statuses = [("upscale", 200), ("inpaint", 200), ("txt2img", 500), ("inpaint", 500)]
    assert counts.requests == [(*one, "") for one in statuses]


def test_a_repeat_is_no_generated_image() -> None:
    from prometheus_client import REGISTRY

    metrics = Metrics()
    image = GeneratedImage(Image.new("RGB", (8, 8)), None)
    metrics.spent(Result((image,), TextToImage(prompt="x"), {"encode": 0.0}, 0.0, "hit"), "repeat")
    labels = {"finish_reason": "success", "model": "", "key": "repeat"}
    assert REGISTRY.get_sample_value("sd_images_total", labels) is None
    assert REGISTRY.get_sample_value("sd_request_stage_seconds_count", {"stage": "encode"}) is None
    assert REGISTRY.get_sample_value("sd_repeats_total", {"cache": "hit"})
    for one in vars(metrics).values():  # other tests in this process may make theirs
        REGISTRY.unregister(one)
