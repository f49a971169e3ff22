"""Bodies of the WebUI's txt2img and img2img: what public clients send, and what it means."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from api.http.keys import new
from api.webui import controlnet, translate
from api.webui.body import GenerationBody
from runnables.errors import InvalidInput
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.runnables.images.test_codec import file, strokes

SMALL: dict[str, Any] = {"prompt": "x", "steps": 1, "seed": 1, "width": 64, "height": 64}
Start = Callable[..., StableDiffusionRunnable]


@pytest.fixture(scope="module")
def client(
    start: Start, tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    secrets, lines = zip(*(new(name) for name in ("one", "two")), strict=True)
    keys.write_text("\n".join(line.line() for line in lines))
    runnable = start("sd1", models=f"sd2={tiny_model('sd2')}", api_keys=str(keys))
    with TestClient(Api(runnable).app(), headers={"x-api-key": secrets[0]}) as one:
        one.app_state["second"] = secrets[1]
        yield one


def parameters(**fields: Any) -> TextToImage:
    found = translate.parameters(GenerationBody(**{"prompt": "x", **fields}), TextToImage, ())
    assert isinstance(found, TextToImage)
    return found


def generated(client: TestClient, path: str = "txt2img", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/sdapi/v1/{path}", json={**SMALL, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return {**found, "info": json.loads(found["info"])}


@pytest.mark.parametrize(
    "scripts",
    [
        {"Refiner": {"args": [False, "", 0.8]}},
        {
            "Seed": {"args": [-1, False, -1, 0, 0, 0]},
            "Sampler": {"args": [20, "Euler a", "Karras"]},
        },
        {"ADetailer": {"args": []}, "Other": []},
        {"Refiner": {"args": [True, "None", 0.8]}, "refiner": [True]},
        {"ADetailer": {"args": [True, False, {"ad_model": "None"}, {}]}},
        {"controlnet": {"args": [{"enabled": True, "model": "None", "module": "none"}]}},
    ],
)
def test_scripts_that_are_off_or_repeat_the_body(scripts: dict[str, Any]) -> None:
    assert parameters(alwayson_scripts=scripts) == parameters()


@pytest.mark.parametrize(
    "scripts",
    [
        {"Refiner": {"args": [True, "xl", 0.8]}},
        {"ADetailer": {"args": [{"ad_model": "None"}, {"ad_model": "face_yolov8n.pt"}]}},
        {"Other": {"args": [{}]}},
    ],
)
def test_scripts_that_are_on_are_refused(scripts: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="not available"):
        parameters(alwayson_scripts=scripts)


@pytest.mark.parametrize("field", ["alwayson_scripts", "override_settings"])
def test_an_empty_list_is_an_empty_object(field: str) -> None:
    assert parameters(**{field: []}) == parameters()


@pytest.mark.parametrize(
    ("sent", "skip"), [(None, 0), (0, 0), (1, 0), ("2", 1), (2.0, 1), (12, 11)]
)
def test_clip_skip(sent: object, skip: int) -> None:
    found = parameters(override_settings={"CLIP_stop_at_last_layers": sent})
    assert found.clip_skip == skip


@pytest.mark.parametrize("sent", [-1, 13, 1.5, "x", [1], float("inf")])
def test_wrong_clip_skips(sent: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parameters(override_settings={"CLIP_stop_at_last_layers": sent})
    assert caught.value.loc == ("override_settings", "CLIP_stop_at_last_layers")


def test_the_second_pass_may_repeat_the_first() -> None:
    first = {"sampler_name": "Euler", "scheduler": "Karras", "negative_prompt": "y", "width": 64}
    again = {"hr_sampler_name": "Euler", "hr_scheduler": "Karras", "hr_negative_prompt": "y"}
    again |= {"hr_prompt": "x", "firstphase_width": 64, "hr_checkpoint_name": "Use same checkpoint"}
    repeated = parameters(**first, enable_hr=True, **again)
    assert repeated == parameters(**first, enable_hr=True)


def test_the_length_of_a_prompt_is_that_of_what_was_sent() -> None:
    for prompt in ("+" * 32_000, "(" * 10 + "+" * 31_980 + ")" * 10, r"\(" * 16_000):
        assert parameters(prompt=prompt).prompt in (prompt, prompt.replace("\\", ""))
    with pytest.raises(InvalidInput) as caught:
        parameters(prompt="x" * 32_001)
    assert caught.value.loc == ("prompt",)


def test_no_prompt_and_no_style_are_what_they_are_in_the_webui() -> None:
    for none in ([], [""], ["None"]):
        assert parameters(prompt="", styles=none).prompt == ""
    with pytest.raises(InvalidInput) as caught:
        parameters(styles=["neon"])
    assert caught.value.loc == ("styles",)


@pytest.mark.parametrize(("seed", "ours"), [(0, 0), (1, 1), (-1, None), (-2, None)])
def test_only_negative_seeds_are_drawn_at_random(seed: int, ours: int | None) -> None:
    assert parameters(seed=seed).seed == ours


def test_sizes_are_rounded_down() -> None:
    found = parameters(width=990, height=316)
    assert (found.width, found.height) == (984, 312)


def test_the_size_that_was_generated_is_reported(client: TestClient) -> None:
    found = generated(client, width=70, height=79)
    assert (found["info"]["width"], found["info"]["height"]) == (64, 72)
    assert "Size: 64x72" in found["info"]["infotexts"][0]


def test_seeds_of_64_bits_are_taken_and_reported_exactly(client: TestClient) -> None:
    seed = 6687881544318117707
    found = generated(client, seed=seed, batch_size=2)
    assert found["info"]["all_seeds"] == [seed, seed + 1]
    assert f"Seed: {seed}," in found["info"]["infotexts"][0]
    assert generated(client, seed=seed)["images"][0] == found["images"][0]
    assert generated(client, seed=seed - 1)["images"][0] != found["images"][0]
    assert client.post("/sdapi/v1/txt2img", json={**SMALL, "seed": 2**64}).status_code == 400


@pytest.mark.parametrize(
    "name", ["sd2 [6ce0161689]", "sd2", "sd2.safetensors [6ce0161689]", " sd2"]
)
def test_model_names_may_have_a_hash(client: TestClient, name: str) -> None:
    found = generated(client, override_settings={"sd_model_checkpoint": name})
    assert found["info"]["sd_model_name"] == "sd2"


@pytest.mark.parametrize("name", ["", None])
def test_a_model_that_is_not_named_is_the_default(client: TestClient, name: str | None) -> None:
    found = generated(client, override_settings={"sd_model_checkpoint": name})
    assert found["info"]["sd_model_name"] == "sd1"


def test_the_chosen_model_holds_for_the_key_that_chose_it(client: TestClient) -> None:
    other = {"x-api-key": client.app_state["second"]}
    options = client.get("/sdapi/v1/options").json()
    wanted = {**options, "sd_model_checkpoint": "sd2 [6ce0161689]"}
    assert client.post("/sdapi/v1/options", json=wanted, headers=other).status_code == 200
    chosen = client.get("/sdapi/v1/options", headers=other).json()["sd_model_checkpoint"]
    assert chosen == "sd2"
    assert client.get("/sdapi/v1/options").json() == options
    answer = client.post("/sdapi/v1/txt2img", json=SMALL, headers=other).json()
    assert json.loads(answer["info"])["sd_model_name"] == "sd2"
    assert generated(client)["info"]["sd_model_name"] == "sd1"
    unknown = {"sd_model_checkpoint": "sd3"}
    assert client.post("/sdapi/v1/options", json=unknown, headers=other).status_code == 404


def test_both_spellings_of_controlnet_are_read() -> None:
    scripts = {"controlnet": {"args": [{"model": "a"}]}, "ControlNet": {"args": [{"model": "b"}]}}
    assert [unit.model for unit in controlnet.units(scripts)] == ["a", "b"]


@pytest.mark.parametrize("field", ["comments", "\ud83d"])
def test_half_surrogates_in_what_is_echoed(client: TestClient, field: str) -> None:
    body = json.dumps({**SMALL, field: {"a": "\ud83d"}})
    answer = client.post("/sdapi/v1/txt2img", content=body)
    assert answer.status_code == 400, answer.text
    assert "surrogate" in answer.json()["detail"]


def test_numbers_that_are_infinite_in_what_is_echoed(client: TestClient) -> None:
    body = json.dumps(SMALL)[:-1] + ', "comments": {"a": 1e400}}'
    assert client.post("/sdapi/v1/txt2img", content=body).status_code == 400


def test_only_the_strokes_of_a_mask_are_repainted(client: TestClient, photo: Image.Image) -> None:
    layer = strokes().resize((64, 64), Image.Resampling.NEAREST)
    sent = {"init_images": [text(photo)], "mask": text(layer), "denoising_strength": 1}
    answer = generated(client, "img2img", **sent)
    opaque = Image.new("L", layer.size)
    opaque.paste(255, mask=layer.getchannel("A"))
    same = generated(client, "img2img", **{**sent, "mask": text(opaque)})
    assert (pixels(answer) == pixels(same)).all()
    whole = generated(client, "img2img", **{**sent, "mask": text(Image.new("L", (64, 64), 255))})
    assert (pixels(answer) != pixels(whole)).any()


def test_images_in_base64_with_line_breaks(client: TestClient, photo: Image.Image) -> None:
    sent = "\n".join(text(photo)[i : i + 76] for i in range(0, len(text(photo)), 76))
    assert generated(client, "img2img", init_images=[f"data:image/png;base64,{sent}"], steps=2)


def text(image: Image.Image) -> str:
    return base64.b64encode(file(image)).decode()


def pixels(answer: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))))
