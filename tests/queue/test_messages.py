"""Both forms, as they come and as they are published; what is wrong is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploy.queue import keys
from deploy.queue.front import package
from deploy.queue.front.publish import plain
from deploy.queue.messages import from_queue, read
from runnables.errors import InvalidInput
from runnables.parameters import Upscale
from runnables.samplers import resolve
from tests.queue import tasks

LINK = "https://example.com/in.png"


@pytest.mark.parametrize(
    "body",
    [
        tasks.newer("a", seed=7),
        tasks.older("b"),
        tasks.newer("c", "image-to-image", image_link=LINK, denoising_strength=0.4),
        tasks.older("d", "image-to-image", LINK),
        tasks.newer("e", enable_hr=True, hr_scale=1.5, hr_upscaler="Latent"),
        tasks.extra("f", upscaling_resize=3),
    ],
    ids=["newer", "older", "newer image", "older image", "second pass", "extra"],
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
    assert resolve(str(parameters.scheduler)) == "euler_karras"
    assert parameters.seed == read(body).parameters().seed  # drawn once, from the task
    assert read(tasks.newer("y")).parameters().seed != parameters.seed


def test_a_second_pass_and_an_upscale_become_ours() -> None:
    body = tasks.newer(
        "x", enable_hr=True, denoising_strength=0.5, hr_second_pass_steps=0, hr_upscaler="Lanczos"
    )
    hires = {"scale": 2.0, "strength": 0.5, "num_inference_steps": None, "upscaler": "lanczos"}
    assert read(body).parameters().model_dump()["hires"] == hires
    without = tasks.newer("x", enable_hr=False, hr_scale=2, hr_resize_x=512)
    assert read(without).parameters().model_dump()["hires"] is None
    task = read(tasks.extra("x", upscaler_1="my-x4", gfpgan_visibility=0, upscaling_resize_w=512))
    assert task.parameters() == Upscale(upscaler="my-x4", scale=2)
    assert (task.kind, task.content.links()) == ("upscale", [LINK])
    assert read(tasks.extra("x", image="aGk=")).content.links() == ["aGk="]


def scripts(**given: Any) -> dict[str, Any]:
    body = tasks.older("x")
    return {**body, "alwayson_scripts": {**body["alwayson_scripts"], **given}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (tasks.newer("x", steps=0), "steps"),
        (tasks.newer("x", steps="many"), "steps"),
        (tasks.newer("x", width=100), "width"),
        (tasks.newer("x", prompt=""), "prompt"),
        (tasks.newer("x", tiling=True), "tiling"),
        (tasks.newer("x", enable_hr=True, hr_scale=9), "hr_scale"),
        (tasks.newer("x", enable_hr=True, hr_second_pass_steps=151), "hr_second_pass_steps"),
        (tasks.newer("x", enable_hr=True, hr_resize_x=512), "hr_resize_x"),
        (tasks.newer("x", enable_hr=True, firstphase_width=64), "firstphase_width"),
        (tasks.newer("x", "inpaint", image_link=LINK, mask="x", enable_hr=True), "enable_hr"),
        (tasks.extra("x", upscaling_resize=5), "upscaling_resize"),
        (tasks.extra("x", upscaler_1=""), "upscaler_1"),
        (tasks.extra("x", upscaler_2="Lanczos"), "upscaler_2"),
        (tasks.extra("x", codeformer_visibility=0.5), "codeformer_visibility"),
        (tasks.extra("x", resize_mode=1), "resize_mode"),
        (tasks.extra("x", prompt="x"), "prompt"),
        (tasks.extra("x", image_link=f"{LINK},{LINK}"), "input image"),
        (tasks.extra("x", image_link=""), "input image"),
        (tasks.newer("x", "extra-batch-image"), "extra-single-image"),
        (tasks.newer("x", colour="red"), "colour"),
        (tasks.newer("x", batch_size=8, n_iter=8), "batch_size"),
        (tasks.newer("x", "image-to-image"), "input image"),
        (tasks.newer("x", image_link=LINK), "input image"),
        (tasks.newer("x", "pipeline"), "ComfyUI"),
        (tasks.newer("../x"), "id"),
        (tasks.newer("x", override_settings={"clip": 2}), "override_settings.clip"),
        (tasks.older("x", cfg_scale=99), "cfg_scale"),
        (scripts(id_task=None), "id_task"),
        (scripts(save_dir="../../etc"), "save_dir"),
        (scripts(sd_model_checkpoint="../x"), "sd_model_checkpoint"),
        (scripts(controlnet={"args": [{"model": "canny"}]}), "ControlNet"),
        ({"prompt": "x"}, "alwayson_scripts"),
        ({"task": 1}, "task"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert field in caught.value.message or field in map(str, caught.value.loc)


def test_the_package_has_all_the_front_door_needs(tmp_path: Path) -> None:
    for path in package.sources():
        copied = tmp_path / path.relative_to(package.ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    code = "import sys, deploy.queue.front.handler; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert told.stdout.strip() == b"False", told.stderr.decode()[-2000:]
    names = package.sampler_names()
    assert plain("DPM++ 2M Karras") in names and plain("Euler a") in names


def test_a_package_is_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_install", lambda folder, platform: None)  # no network
    for name in ("one.zip", "two.zip"):
        package.build(tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert "deploy/queue/front/samplers.json" in archive.namelist()
