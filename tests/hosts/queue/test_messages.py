"""Both forms, as they come and as they are published; what is wrong is refused by name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from hosts.queue import keys
from hosts.queue.front import handler, package
from hosts.queue.front.publish import Front
from hosts.queue.messages import from_queue, parse_object, read
from hosts.queue.worker.inputs import Reader
from runnables.errors import InvalidInput, UnsupportedImage
from runnables.parameters import TextToImage, Upscale
from runnables.settings import Settings
from tests.hosts.queue import tasks

LINK = tasks.LINK
BATCH = "extra-batch-image"
UNIT = {"model": "canny", "image_link": LINK, "weight": 0.5}


def scripts(**given: Any) -> dict[str, Any]:
    body = tasks.older("x")
    return {**body, "alwayson_scripts": {**body["alwayson_scripts"], **given}}


@pytest.mark.parametrize(
    "body",
    [
        tasks.newer("a", seed=7),
        tasks.older("b"),
        tasks.newer("c", "image-to-image", image_link=LINK, denoising_strength=0.4),
        tasks.older("d", "image-to-image", LINK),
        tasks.newer("e", enable_hr=True, hr_scale=1.5, hr_upscaler="Latent"),
        tasks.extra("f", upscaling_resize=3),
        tasks.extra("g", BATCH, image_link=f"{LINK}, {LINK}"),
        tasks.extra("h", BATCH, image_link=None, imageList=[{"data": LINK, "name": "x"}]),
        tasks.newer("i", alwayson_scripts={"controlnet": {"args": [UNIT]}}),
        tasks.older("j", "image-to-image", LINK, mask="aGk=", inpainting_mask_invert=1),
        scripts(controlnet={"args": [UNIT]}),
    ],
    ids=lambda body: str(body.get("task", body.get("alwayson_scripts")))[:60],
)
def test_a_task_is_the_same_behind_the_queue(body: dict[str, Any]) -> None:
    task = read(body)
    bare = from_queue(task.message())
    wrapped = from_queue(json.dumps({"Type": "Notification", "Message": task.message()}))
    assert bare == wrapped and bare.parameters() == task.parameters()
    assert (bare.form, bare.digest, bare.model) == (task.form, task.digest, task.model)
    assert keys.manifest(bare) == keys.manifest(task)


def test_webui_names_become_ours() -> None:
    body = tasks.newer(
        "x", cfg_scale=4, seed=-1, sampler_name="Euler", scheduler="Karras", n_iter=2, batch_size=2
    )
    parameters = read(body).parameters()
    assert parameters.num_inference_steps == 2 and parameters.guidance_scale == 4
    assert parameters.num_images_per_prompt == 4
    assert str(parameters.scheduler) == "euler_karras"
    assert parameters.seed == read(body).parameters().seed  # drawn once, from the task
    assert read(tasks.newer("y")).parameters().seed != parameters.seed


def test_a_second_pass_and_an_upscale_become_ours() -> None:
    body = tasks.newer(
        "x", enable_hr=True, denoising_strength=0.5, hr_second_pass_steps=0, hr_upscaler="Lanczos"
    )
    hires: dict[str, Any] = {"scale": 2.0, "strength": 0.5, "upscaler": "lanczos"}
    hires["num_inference_steps"] = None
    assert read(body).parameters().model_dump()["hires"] == hires
    without = tasks.newer("x", enable_hr=False, hr_scale=2, hr_resize_x=512)
    assert read(without).parameters().model_dump()["hires"] is None
    task = read(tasks.extra("x", upscaler_1="my-x4", gfpgan_visibility=0, upscaling_resize_w=512))
    assert task.parameters() == Upscale(upscaler="my-x4", scale=2)
    assert (task.kind, task.content.links()) == ("upscale", [LINK])
    assert read(tasks.extra("x", image="aGk=")).content.links() == ["aGk="]
    listed = [{"data": "aGk=", "name": "one"}, {"data": LINK, "name": "two"}]
    assert read(tasks.extra("x", BATCH, imageList=listed)).content.links() == ["aGk=", LINK]


def test_a_data_url_is_one_link() -> None:
    data = "data:image/png;base64,aGk="
    for body in (
        tasks.newer("x", "image-to-image", image_link=data),
        tasks.older("x", "image-to-image", data),
        tasks.extra("x", image_link=data),
    ):
        assert read(body).content.links() == [data]
    several = read(tasks.extra("x", BATCH, image_link=f"{data},{LINK} , {data}"))
    assert several.content.links() == [data, LINK, data]


def test_prompts_units_and_masks_are_read_as_over_http() -> None:
    prompt = "a (red:1.3) circle <lora:ink:0.5>, <cat>"
    body = tasks.newer("x", prompt=prompt, override_settings={"CLIP_stop_at_last_layers": 2})
    body["task"]["content"]["alwayson_scripts"] = {"ControlNet": {"args": [UNIT]}}
    parameters = read(body).parameters(embeddings=["<cat>", "dog"])
    assert isinstance(parameters, TextToImage)
    assert parameters.prompt == "a (red:1.3) circle , <cat>" and parameters.clip_skip == 1
    assert parameters.prompt_syntax == "webui" and parameters.embeddings == ("<cat>",)
    assert [(one.name, one.weight) for one in parameters.loras] == [("ink", 0.5)]
    assert [(one.name, one.weight) for one in parameters.controlnets] == [("canny", 0.5)]
    masked = read(tasks.newer("x", "image-to-image", image_link=LINK, mask="aGk="))
    assert (masked.kind, masked.parameters().task) == ("inpaint", "inpaint")
    assert masked.parameters().model_dump()["strength"] == 0.75  # as the WebUI leaves it


def test_a_field_that_is_left_out_is_the_same_as_its_default() -> None:
    digest = read(tasks.newer("x")).digest
    same = read(tasks.newer("x", batch_size=1, enable_hr=False, mask=None, s_noise=1.0))
    assert same.digest == digest != read(tasks.newer("x", batch_size=2)).digest


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (tasks.newer("x", steps=0), "steps"),
        (tasks.newer("x", steps="many"), "steps"),
        (tasks.newer("x", width=100), "width"),
        (tasks.newer("x", tiling=True), "tiling"),
        (tasks.newer("x", enable_hr=True, hr_scale=9), "hr_scale"),
        (tasks.newer("x", enable_hr=True, hr_second_pass_steps=151), "hr_second_pass_steps"),
        (tasks.newer("x", enable_hr=True, hr_resize_x=2048), "hr_resize_x"),
        (tasks.newer("x", width=None, enable_hr=True, hr_resize_x=512), "hr_resize_x"),
        (tasks.newer("x", styles=["film"]), "styles"),
        (tasks.newer("x", refiner_checkpoint="xl"), "refiner_checkpoint"),
        (tasks.newer("x", alwayson_scripts={"reactor": {"args": [True]}}), "reactor"),
        (tasks.newer("x", alwayson_scripts={"controlnet": {"args": [1]}}), "args"),
        (tasks.newer("x", alwayson_scripts="x"), "alwayson_scripts"),
        (tasks.newer("x", prompt="x <lora:ink:9>"), "loras"),
        (tasks.newer("x", mask="aGk="), "mask"),
        (tasks.newer("x", "inpaint", image_link=LINK), "mask"),
        (tasks.newer("x", "image-to-image", image_link=LINK, resize_mode=2), "resize_mode"),
        (tasks.newer("x", enable_hr=True, firstphase_width=64), "firstphase_width"),
        (tasks.newer("x", "inpaint", image_link=LINK, mask="x", enable_hr=True), "enable_hr"),
        (tasks.extra("x", upscaling_resize=5), "upscaling_resize"),
        (tasks.extra("x", upscaler_1=""), "upscaler_1"),
        (
            tasks.extra("x", upscaler_2="Lanczos", extras_upscaler_2_visibility=1),
            "upscaler_2",
        ),
        (tasks.extra("x", codeformer_visibility=0.5), "codeformer_visibility"),
        (tasks.extra("x", resize_mode=1), "resize_mode"),
        (tasks.extra("x", prompt="x"), "prompt"),
        (tasks.extra("x", image_link=f"{LINK},{LINK}"), "input image"),
        (tasks.extra("x", image_link=""), "input image"),
        (tasks.extra("x", BATCH, image_link=""), "1 to 10 input images"),
        (tasks.extra("x", BATCH, image_link=",".join([LINK] * 11)), "1 to 10 input images"),
        (tasks.extra("x", BATCH, imageList=[{"name": "x"}]), "data"),
        (tasks.extra("x", alwayson_scripts={"controlnet": {"args": []}}), "alwayson_scripts"),
        (tasks.newer("x", colour="red"), "colour"),
        (tasks.newer("x", batch_size=8, n_iter=8), "batch_size"),
        (tasks.newer("x", "image-to-image"), "input image"),
        (tasks.newer("x", image_link=LINK), "input image"),
        (tasks.newer("x", "pipeline"), "ComfyUI"),
        (tasks.newer("../x"), "id"),
        (tasks.newer("x", override_settings={"clip": 2}), "override_settings"),
        (tasks.older("x", cfg_scale=99), "cfg_scale"),
        (tasks.newer("x", sampler_name="DPM adaptive", scheduler="Karras"), "sampler_name"),
        (tasks.older("x", sampler_index="DPM adaptive"), "sampler_index"),
        (scripts(id_task=None), "id_task"),
        (scripts(save_dir="../../etc"), "save_dir"),
        (scripts(sd_model_checkpoint="../x"), "sd_model_checkpoint"),
        (scripts(controlnet={"args": [{"model": "canny"}]}), "ControlNet"),
        (scripts(controlnet={"args": [{**UNIT, "module": "openpose"}]}), "openpose"),
        (scripts(controlnet={"args": [{**UNIT, "weight": 9}]}), "weight"),
        ({"prompt": "x"}, "alwayson_scripts"),
        ({"task": 1}, "task"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert field in caught.value.message or field in map(str, caught.value.loc)


def test_a_package_is_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_install", lambda folder, platform: None)  # no network
    for name in ("one.zip", "two.zip"):
        package.build(tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_keys_that_s3_could_not_store_are_refused() -> None:
    """S3's keys end at 1,024 bytes."""
    body = tasks.newer("x" * 128)
    body["task"]["metadata"]["prefix"] = "p" * 700
    task = read(body)
    one = task.metadata
    made = [keys.image(task, 9), keys.manifest(task), keys.cancelled(one.prefix, one.id)]
    assert max(map(len, made)) <= 1024
    body["task"]["metadata"]["prefix"] = "p" * 701
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert caught.value.problems[0]["loc"] == ["task", "metadata", "prefix"]


@pytest.mark.parametrize("value", ["1e400", "-1e999", "NaN", "Infinity", '"\\ud800"'])
@pytest.mark.parametrize("field", ['"extra": {"x": [%s]}', '"runtime": "r", "y": %s'])
def test_values_that_json_does_not_know_are_refused(field: str, value: str) -> None:
    text = json.dumps(tasks.newer("x")).replace('"id"', field % value + ', "id"', 1)
    with pytest.raises(InvalidInput):
        parse_object(text)


def test_a_link_with_a_key_too_long_is_the_tasks_fault() -> None:
    reader = Reader(None, {"bucket"}, Settings())
    task = read(tasks.newer("x", "image-to-image", image_link="s3://bucket/" + "é" * 513))
    with pytest.raises(InvalidInput, match="1024 bytes"):
        reader.of(task)


def test_an_image_that_is_none_is_named_as_it_was_sent() -> None:
    reader = Reader(None, set(), Settings())
    task = read(tasks.newer("x", "image-to-image", image_link=None, init_images=["%%%"]))
    with pytest.raises(UnsupportedImage) as caught:
        reader.of(task)
    assert caught.value.loc == ("init_images",)


@pytest.mark.parametrize(
    ("body", "encoded"),
    [(base64.b64encode(b"{}\xff").decode(), True), ("a", True), ('{"a": "\ud83d"}', False)],
)
def test_a_body_that_is_no_text_is_refused_at_the_door(body: str, encoded: bool) -> None:
    event = {"httpMethod": "POST", "path": "/v1alpha2", "body": body, "isBase64Encoded": encoded}
    answer = handler.answer(cast(Front, None), event)
    assert (answer["statusCode"], json.loads(answer["body"])["detail"][0]["loc"]) == (400, ["body"])
