"""Jobs with ControlNets: their images are stored, restored, and part of the fingerprint."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api.jobs.conftest import ASK, Client

Make = Callable[..., Client]
PARAMETERS = {
    **ASK,
    "seed": 1,
    "output_format": "png",
    "controlnets": [{"name": "one"}, {"name": "two", "weight": 0.5}],
}


@pytest.fixture
def settings(controlnets: Callable[[str], Path]) -> dict[str, Any]:
    return {"controlnet_dir": str(controlnets("sd1"))}


@pytest.fixture(scope="module")
def edges(photo: Image.Image) -> list[bytes]:
    files = []
    for picture in (photo, photo.rotate(90)):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def send(client: Client, edges: list[bytes], **body: Any) -> Any:
    asked = {"task": "txt2img", "parameters": PARAMETERS, **body}
    return client.http.post("/jobs", data={"data": json.dumps(asked)}, files=parts(edges))


def parts(edges: list[bytes]) -> list[tuple[str, bytes]]:
    return [("control", edge) for edge in edges]


def direct(client: Client, edges: list[bytes]) -> bytes:
    data = {"data": json.dumps(PARAMETERS)}
    return client.http.post("/txt2img", data=data, files=parts(edges)).content


def image(client: Client, id: str) -> bytes:
    done = client.until(id, "succeeded", "failed")
    assert done["error"] is None
    return client.http.get(done["images"][0]["url"]).content


def test_a_job_draws_what_the_endpoint_draws(
    make: Make, settings: dict[str, Any], edges: list[bytes]
) -> None:
    client = make(**settings)
    answer = send(client, edges)
    assert answer.status_code == 202, answer.text
    assert image(client, answer.json()["id"]) == direct(client, edges)
    assert direct(client, edges) != direct(client, edges[::-1])


def test_the_next_process_has_the_images(
    make: Make, settings: dict[str, Any], edges: list[bytes]
) -> None:
    first = make(**settings)
    first.api.jobs._parts.runner.stop()  # type: ignore[union-attr]
    assert send(first, edges, id="kept").status_code == 202
    first.api.stop()
    second = make(**settings)
    assert image(second, "kept") == direct(second, edges)


def test_control_images_are_part_of_the_body(
    make: Make, settings: dict[str, Any], edges: list[bytes]
) -> None:
    client = make(**settings)
    assert [send(client, edges, id="mine").status_code for _ in range(2)] == [202, 200]
    assert send(client, edges[::-1], id="mine").status_code == 409


def test_another_number_of_images_is_refused(
    make: Make, settings: dict[str, Any], edges: list[bytes]
) -> None:
    client = make(**settings)
    json_only = client.http.post("/jobs", json={"task": "txt2img", "parameters": PARAMETERS})
    for answer in (json_only, send(client, edges[:1]), send(client, [*edges, edges[0]])):
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["control"])
    broken = send(client, [edges[0], b"no image"])
    assert (broken.status_code, broken.json()["detail"][0]["loc"]) == (415, ["control"])
