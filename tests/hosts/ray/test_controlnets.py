"""Control images reach a replica, with requests and with jobs."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import httpx
from PIL import Image

from tests.service.server import Server

USES = [{"name": "one"}]
ASK: dict[str, Any] = {
    "prompt": "a red circle",
    "num_inference_steps": 2,
    "seed": 1,
    "output_format": "png",
}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def draw(server: Server, uses: list[Any], *controls: bytes) -> httpx.Response:
    parts: list[tuple[str, Any]] = [("control", ("a.png", one)) for one in controls]
    parts.append(("data", (None, json.dumps({**ASK, "controlnets": uses}))))
    return httpx.post(f"{server.url}/txt2img", files=parts, timeout=300)


def test_a_control_image_acts(server: Server, photo: Image.Image) -> None:
    assert httpx.get(f"{server.url}/controlnets").json() == USES
    drawn = [draw(server, [], *()), draw(server, USES, png(photo))]
    drawn.append(draw(server, USES, png(photo.rotate(90))))
    assert [one.status_code for one in drawn] == [200] * 3, [one.text[:200] for one in drawn]
    assert len({Image.open(io.BytesIO(one.content)).tobytes() for one in drawn}) == 3


def test_what_does_not_fit_is_told_by_the_replica(server: Server, photo: Image.Image) -> None:
    cases = [(USES, 0, 400, "control"), ([], 1, 400, "control"), ([{"name": "x"}], 1, 404, None)]
    for uses, count, status, field in cases:
        answer = draw(server, uses, *[png(photo)] * count)
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"][0]["loc"] == [field or "controlnets"]


def test_a_job_has_its_control_image(server: Server, photo: Image.Image) -> None:
    body = {"task": "txt2img", "parameters": {**ASK, "controlnets": USES}}
    parts = [("data", (None, json.dumps(body))), ("control", ("a.png", png(photo)))]
    accepted = httpx.post(f"{server.url}/jobs", files=parts, timeout=300)
    assert accepted.status_code == 202, accepted.text
    url, end = f"{server.url}/jobs/{accepted.json()['id']}", time.monotonic() + 300
    while (job := httpx.get(url).json())["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert job["state"] == "succeeded", job
    image = httpx.get(f"{url}/images/0").content
    assert image == draw(server, USES, png(photo)).content
