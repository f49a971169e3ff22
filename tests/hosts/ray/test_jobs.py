"""Jobs on Ray: their state is the ingress's, the images come from replicas."""

from __future__ import annotations

import json

import httpx

from tests.service.server import Server

BODY = {"task": "txt2img", "parameters": {"prompt": "sea", "num_inference_steps": 30}}


def test_a_job_tells_its_steps_and_previews_and_ends_with_an_image(server: Server) -> None:
    accepted = httpx.post(f"{server.url}/jobs", json=BODY, timeout=300)
    assert accepted.status_code == 202, accepted.text
    where = server.url + accepted.headers["location"]
    steps, previews, final = set(), 0, {}
    with httpx.stream("GET", f"{where}/events?preview_every=3", timeout=300) as events:
        for line in events.iter_lines():
            if not line.startswith("data:"):
                continue
            told = json.loads(line.removeprefix("data:"))
            steps.add(told["step"])
            previews += bool(told.get("preview"))
            final = told
    assert final["state"] == "succeeded", final
    assert len(steps) > 3
    assert previews > 0
    image = httpx.get(server.url + final["images"][0]["url"])
    assert image.headers["content-type"].startswith("image/")


def test_a_job_that_cannot_be_drawn_is_refused_at_once(server: Server) -> None:
    parameters = {"prompt": "sea", "height": 4096, "width": 4096}
    refused = httpx.post(f"{server.url}/jobs", json={**BODY, "parameters": parameters}, timeout=300)
    assert refused.status_code == 413, refused.text
