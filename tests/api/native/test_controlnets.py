"""ControlNets over HTTP: parts beside `data`, jobs, and the WebUI's units."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webuiapi
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from api.webui.controlnet import Unit
from api.webui.pictures import controlled
from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs

Start = Callable[..., StableDiffusionRunnable]
ASK: dict[str, Any] = {
    "prompt": "x",
    "num_inference_steps": 2,
    "seed": 1,
    "height": 64,
    "width": 64,
    "output_format": "png",
}
USES = [{"name": "one", "weight": 0.8, "end": 0.5}, {"name": "two"}]


@pytest.fixture(scope="module")
def runnable(start: Start, controlnets: Callable[[str], Path]) -> StableDiffusionRunnable:
    return start("sd1", controlnet_dir=str(controlnets("sd1")))


@pytest.fixture(scope="module")
def client(runnable: StableDiffusionRunnable) -> TestClient:
    return TestClient(Api(runnable).app(), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def edges() -> list[Image.Image]:
    pixels = np.random.default_rng(5).integers(0, 2, (2, 64, 64, 3), dtype=np.uint8) * 255
    return [Image.fromarray(one) for one in pixels]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def text(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def form(
    data: dict[str, Any], controls: list[Any], **files: Image.Image
) -> list[tuple[str, tuple[Any, ...]]]:
    """Parts of a multipart body; a control that is a string goes as text."""
    parts: list[tuple[str, tuple[Any, ...]]] = [("data", (None, json.dumps(data)))]
    parts += [(name, ("a.png", png(image), "image/png")) for name, image in files.items()]
    for one in controls:
        content = png(one) if isinstance(one, Image.Image) else one
        parts.append(("control", (None if isinstance(one, str) else "c.png", content)))
    return parts


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_they_are_listed(client: TestClient) -> None:
    assert client.get("/controlnets").json() == [{"name": n} for n in ("one", "pooled", "two")]


@pytest.mark.parametrize("task", [TextToImage, ImageToImage, Inpaint])
def test_control_images_go_beside_the_data(
    task: type[TextToImage],
    client: TestClient,
    runnable: StableDiffusionRunnable,
    edges: list[Image.Image],
    photo: Image.Image,
    mask: Image.Image,
) -> None:
    inputs = {TextToImage: {}, ImageToImage: {"img": photo}}.get(task, {"img": photo, "mask": mask})
    ask = {**ASK, "controlnets": USES}
    answer = client.post(f"/{task.task}", files=form(ask, edges, **inputs))
    assert answer.status_code == 200, answer.text
    ticket = runnable.submit(task(**ask), Inputs(*inputs.values(), controls=tuple(edges)))
    expected = np.asarray(ticket.future.result(timeout=300).images[0].image)
    assert (pixels(answer.content) == expected).all()
    turned = client.post(f"/{task.task}", files=form(ask, edges[::-1], **inputs))
    assert (pixels(turned.content) != expected).any(), "the order of the parts counts"
    told = json.loads(Image.open(io.BytesIO(answer.content)).text["sd-parameters"])  # type: ignore[attr-defined]
    assert [use["name"] for use in told["controlnets"]] == ["one", "two"]


def test_txt2img_takes_multipart_without_any(client: TestClient) -> None:
    plain = client.post("/txt2img", json=ASK)
    assert client.post("/txt2img", files=form(ASK, [])).content == plain.content


@pytest.mark.parametrize(
    ("uses", "controls", "status", "loc"),
    [
        (USES, 1, 400, ["control"]),
        (USES[:1], 2, 400, ["control"]),
        ([], 1, 400, ["control"]),
        (USES[:1], 0, 400, ["control"]),
        (USES, 4, 400, ["control"]),
        ([{"name": "nine"}], 1, 404, ["controlnets"]),
        ([{"name": "one", "weight": 2.1}], 1, 400, ["data", "controlnets", 0, "weight"]),
        ([{"name": "one", "weight": -1}], 1, 400, ["data", "controlnets", 0, "weight"]),
        ([{"name": "one", "start": 0.5, "end": 0.5}], 1, 400, ["data", "controlnets", 0]),
        ([{"name": "one", "scale": 1}], 1, 400, ["data", "controlnets", 0, "scale"]),
        ([{"weight": 1}], 1, 400, ["data", "controlnets", 0, "name"]),
        ([*USES, *USES], 4, 400, ["data", "controlnets"]),
    ],
)
def test_what_does_not_fit_names_its_field(
    uses: list[Any],
    controls: int,
    status: int,
    loc: list[object],
    client: TestClient,
    edges: list[Image.Image],
) -> None:
    sent = form({**ASK, "controlnets": uses}, (edges * 2)[:controls])
    answer = client.post("/txt2img", files=sent)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"][0]["loc"] == loc


@pytest.mark.parametrize(
    ("control", "status"),
    [(b"no image", 415), (b"", 415), ("a string", 400), (b"\x89PNG\r\n", 415)],
)
def test_a_control_image_that_is_none(
    control: bytes | str, status: int, client: TestClient
) -> None:
    answer = client.post("/txt2img", files=form({**ASK, "controlnets": USES[:1]}, [control]))
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"][0]["loc"] == ["control"]


def test_one_that_is_too_large(client: TestClient) -> None:
    large = Image.new("1", (4096, 1025))
    answer = client.post("/txt2img", files=form({**ASK, "controlnets": USES[:1]}, [large]))
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (413, ["control"])


def test_json_cannot_carry_images(client: TestClient) -> None:
    answer = client.post("/txt2img", json={**ASK, "controlnets": USES})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["control"])


def test_other_apis_cannot_either(client: TestClient) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": "x", "controlnets": USES})
    assert answer.status_code == 400
    assert "control images" in answer.json()["error"]["message"]


# -- the WebUI's units ------------------------------------------------------------------------


WEBUI: dict[str, Any] = {
    "prompt": "x",
    "steps": 2,
    "seed": 1,
    "width": 64,
    "height": 64,
    "cfg_scale": 7.5,
}


def drawn(client: TestClient, path: str, *units: Any, **more: Any) -> Any:
    body = {**WEBUI, **more, "alwayson_scripts": {"ControlNet": {"args": list(units)}}}
    return client.post(f"/sdapi/v1/{path}", json=body)


def picture(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return pixels(base64.b64decode(answer.json()["images"][0]))


def test_units_are_our_controlnets(client: TestClient, edges: list[Image.Image]) -> None:
    first = {"model": "one [d14c016b]", "image": text(edges[0]), "weight": 0.8, "guidance_end": 0.5}
    second = {"model": "two", "input_image": text(edges[1]), "module": "none", "enabled": True}
    off = {"model": "nine", "module": "canny", "enabled": False}
    answer = drawn(client, "txt2img", first, off, second)
    ours = client.post("/txt2img", files=form({**ASK, "controlnets": USES}, edges))
    assert (picture(answer) == pixels(ours.content)).all()
    (args,) = [s["args"] for s in answer.json()["parameters"]["alwayson_scripts"].values()]
    assert [unit["model"] for unit in args] == ["one [d14c016b]", "nine", "two"]
    assert not any("image" in unit or "input_image" in unit for unit in args)


def test_units_of_webuiapi(client: TestClient, edges: list[Image.Image]) -> None:
    unit = webuiapi.ControlNetUnit(image=edges[1], model="two", module="none")
    ours = client.post("/txt2img", files=form({**ASK, "controlnets": USES[1:]}, edges[1:]))
    assert (picture(drawn(client, "txt2img", unit.to_dict())) == pixels(ours.content)).all()


def test_a_unit_without_an_image_takes_the_one_that_is_redrawn(
    client: TestClient, photo: Image.Image
) -> None:
    sent = {"init_images": [text(photo)], "denoising_strength": 0.8}
    ask = {**ASK, "controlnets": USES[1:]}
    ours = client.post("/img2img", files=form(ask, [photo], img=photo))
    assert (
        picture(drawn(client, "img2img", {"model": "two"}, **sent)) == pixels(ours.content)
    ).all()
    assert drawn(client, "txt2img", {"model": "two"}).status_code == 400


@pytest.mark.parametrize("args", [[], [False], [{"enabled": False}]])
def test_scripts_that_are_switched_off(client: TestClient, args: list[Any]) -> None:
    plain = client.post("/sdapi/v1/txt2img", json=WEBUI)
    assert (picture(drawn(client, "txt2img", *args)) == picture(plain)).all()


@pytest.mark.parametrize(
    ("unit", "status", "told"),
    [
        ({"module": "canny"}, 400, "canny"),
        ({"control_mode": "ControlNet is more important"}, 400, "control_mode"),
        ({"control_mode": 1}, 400, "control_mode"),
        ({"mask": "aGk="}, 400, "mask"),
        ({"resize_mode": "Tile"}, 400, "resize_mode"),
        ({"weight": 5}, 400, "weight"),
        ({"weight": "much"}, 400, "weight"),
        ({"image": 5}, 400, "image"),
        ({"image": "%%%"}, 415, "control"),
        ({"image": "aGk="}, 415, "control"),
        ({"model": "nine"}, 404, "nine"),
        ({"guidance_start": 1.0}, 400, "start"),
    ],
)
def test_what_a_unit_cannot_have(
    unit: dict[str, Any], status: int, told: str, client: TestClient, edges: list[Image.Image]
) -> None:
    answer = drawn(client, "txt2img", {"model": "one", "image": text(edges[0]), **unit})
    assert answer.status_code == status, answer.text
    assert told in answer.json()["errors"]


@pytest.mark.parametrize("script", [{"args": {"enabled": True}}, {"args": ["one"]}, [5], "one"])
def test_scripts_of_another_form(client: TestClient, script: object) -> None:
    body = {**WEBUI, "alwayson_scripts": {"controlnet": script}}
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 400, answer.text
    assert "args" in answer.json()["errors"]


def test_lists_of_the_extension(client: TestClient) -> None:
    assert client.get("/controlnet/model_list").json() == {"model_list": ["one", "pooled", "two"]}
    assert client.get("/controlnet/module_list").json()["module_list"] == ["none"]
    missing = client.get("/controlnet/detect")
    assert (missing.status_code, set(missing.json())) == (
        404,
        {"error", "detail", "body", "errors"},
    )


def test_resize_modes() -> None:
    wide = Image.new("RGB", (40, 20), (9, 9, 9))
    wide.paste((200, 0, 0), (18, 8, 22, 12))
    for mode in (0, "Just Resize"):
        assert controlled(wide, Unit(resize_mode=mode), (20, 20)) is wide
    assert controlled(wide, Unit(), None) is wide
    cropped = controlled(wide, Unit(resize_mode="Crop and Resize"), (20, 20))
    assert (np.asarray(cropped) == np.asarray(wide.crop((10, 0, 30, 20)))).all()
    filled = controlled(wide, Unit(resize_mode=2), (40, 40))
    assert filled.size == (40, 40)
    assert {filled.getpixel((0, 0)), filled.getpixel((39, 39))} == {(9, 9, 9)}
