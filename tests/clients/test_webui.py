"""The WebUI's Python client, `webuiapi`, unmodified."""

from __future__ import annotations

import base64
import io
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image

from tests.service.server import Server

PROMPT = "a red circle on a blue background"
BLUE = (30, 70, 215)
SMALL = {"prompt": PROMPT, "width": 128, "height": 128}


@pytest.fixture(scope="module")
def client(server: Server) -> webuiapi.WebUIApi:
    address = urlsplit(server.url)
    return webuiapi.WebUIApi(host=address.hostname, port=address.port, steps=4)


def test_txt2img(client: webuiapi.WebUIApi) -> None:
    drawn = client.txt2img(**SMALL, seed=5, batch_size=2, cfg_scale=4, negative_prompt="green")
    assert [image.size for image in drawn.images] == [(128, 128)] * 2
    assert drawn.info["all_seeds"] == [5, 6]
    assert drawn.info["sampler_name"] == "Euler a"
    assert drawn.info["cfg_scale"] == 4
    assert drawn.info["steps"] == 4
    assert drawn.parameters["prompt"] == PROMPT
    assert drawn.image.text["parameters"] == drawn.info["infotexts"][0]


def test_a_random_seed_is_told_and_repeats_the_image(client: webuiapi.WebUIApi) -> None:
    first = client.txt2img(**SMALL)
    again = client.txt2img(**SMALL, seed=first.info["seed"])
    assert (np.asarray(first.image) == np.asarray(again.image)).all()


def test_sampler_and_scheduler(client: webuiapi.WebUIApi) -> None:
    drawn = client.txt2img(**SMALL, sampler_name="DPM++ 2M", scheduler="Karras")
    assert drawn.info["sampler_name"] == "DPM++ 2M"
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in drawn.info["infotexts"][0]
    with pytest.raises(RuntimeError, match="404"):
        client.txt2img(**SMALL, sampler_name="DPM adaptive")


def test_img2img(client: webuiapi.WebUIApi) -> None:
    image = Image.new("RGB", (200, 100), BLUE)
    kept = client.img2img(images=[image], **SMALL, denoising_strength=0.3, seed=1)
    assert kept.image.size == (128, 128)
    assert kept.parameters["init_images"] is None
    with pytest.raises(RuntimeError, match="404"):
        client.img2img(images=[], **SMALL)


@pytest.mark.parametrize("inverted", [0, 1])
def test_inpaint_redraws_what_is_white(client: webuiapi.WebUIApi, inverted: int) -> None:
    image, mask = Image.new("RGB", (128, 128), BLUE), Image.new("L", (128, 128), 255 * inverted)
    mask.paste(255 - 255 * inverted, (40, 40, 88, 88))
    drawn = client.img2img(
        images=[image],
        mask_image=mask,
        inpainting_mask_invert=inverted,
        denoising_strength=1,
        steps=20,
        seed=1,
        **SMALL,
    )
    pixels = np.asarray(drawn.image).astype(int)
    assert np.abs(pixels[:24, :24] - BLUE).mean() < 20, "the corner is kept"
    assert np.abs(pixels[56:72, 56:72] - BLUE).mean() > 30, "the middle is redrawn"


def test_hires_fix(client: webuiapi.WebUIApi) -> None:
    drawn = client.txt2img(
        **SMALL,
        enable_hr=True,
        hr_scale=1.5,
        hr_upscaler=webuiapi.HiResUpscaler.Latent,
        hr_second_pass_steps=3,
        denoising_strength=0.7,
    )
    assert drawn.image.size == (192, 192)
    assert drawn.info["denoising_strength"] == 0.7
    told = "Size: 128x128, Model: embedded, Denoising strength: 0.7, Hires upscale: 1.5, "
    assert told + "Hires steps: 3, Hires upscaler: Latent" in drawn.info["infotexts"][0]
    sized = client.txt2img(**SMALL, enable_hr=True, hr_upscaler="Lanczos", hr_resize_x=256)
    assert sized.image.size == (256, 256)


def test_extras(client: webuiapi.WebUIApi) -> None:
    image = Image.new("RGB", (40, 30), BLUE)
    larger = client.extra_single_image(image, upscaler_1="Lanczos", upscaling_resize=2.5)
    assert larger.image.size == (100, 75)
    assert np.abs(np.asarray(larger.image).astype(int) - BLUE).max() <= 1
    several = client.extra_batch_images([image, image.resize((10, 20))], upscaler_1="Lanczos")
    assert [one.size for one in several.images] == [(80, 60), (20, 40)]
    for given in (
        {"upscaler_1": "None"},
        {"upscaler_1": "R-ESRGAN 4x+"},
        {"upscaler_1": "Lanczos", "upscaling_resize": 8},
        {"upscaler_1": "Lanczos", "gfpgan_visibility": 1},
        {"upscaler_1": "Lanczos", "upscaler_2": "Lanczos", "extras_upscaler_2_visibility": 1},
        {"upscaler_1": "Lanczos", "resize_mode": 1},
    ):
        with pytest.raises(RuntimeError, match=r"40[04]"):
            client.extra_single_image(image, **given)


def test_what_is_not_here_is_refused(client: webuiapi.WebUIApi) -> None:
    for given in (
        {"enable_hr": True, "hr_upscaler": "Nearest"},
        {"enable_hr": True, "hr_sampler_name": "DDIM"},
        {"enable_hr": True, "hr_resize_x": 256, "hr_resize_y": 512},
        {"restore_faces": True},
        {"tiling": True},
        {"script_name": "x/y/z plot"},
        {"subseed_strength": 0.5},
        {"batch_size": 11},
        {"override_settings": {"sd_model_checkpoint": "another"}},
        {"controlnet_units": [webuiapi.ControlNetUnit(image=Image.new("RGB", (8, 8)))]},
    ):
        with pytest.raises(RuntimeError, match=r"40[04]"):  # the client would keep the default {}
            client.txt2img(**SMALL, **given, alwayson_scripts={})


def test_lists(client: webuiapi.WebUIApi) -> None:
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(client.util_get_sampler_names())
    assert "karras" in client.util_get_scheduler_names()
    assert client.util_get_model_names() == ["embedded"]
    assert client.util_get_current_model() == "embedded"
    assert [one["name"] for one in client.get_upscalers()] == ["Lanczos"]
    assert client.get_latent_upscale_modes() == [{"name": "Latent"}]
    assert client.get_loras() == client.get_face_restorers() == []
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_scripts() == {"txt2img": [], "img2img": []}


def test_options(client: webuiapi.WebUIApi) -> None:
    client.util_set_model("embedded")
    assert client.set_options({"sd_model_checkpoint": "embedded"}) is None
    assert client.get_options()["sd_model_checkpoint"] == "embedded"
    assert client.set_options({"sd_model_checkpoint": "another"})["error"] == "Not Found"


def test_png_info(client: webuiapi.WebUIApi) -> None:
    drawn = client.txt2img(**SMALL, seed=5, negative_prompt="green")
    told = client.png_info(drawn.image)
    assert told.info == drawn.info["infotexts"][0]
    assert told.parameters["Prompt"] == PROMPT
    assert told.parameters["Negative prompt"] == "green"
    assert told.parameters["Seed"] == "5"
    assert (told.parameters["Size-1"], told.parameters["Size-2"]) == ("128", "128")
    assert client.png_info(Image.new("RGB", (8, 8))).parameters == {}


def test_progress_and_interrupt(client: webuiapi.WebUIApi) -> None:
    assert client.get_progress()["state"]["job_count"] == 0
    client.util_wait_for_ready()
    answers: list[webuiapi.WebUIApiResult] = []
    long = {**SMALL, "steps": 150, "batch_size": 4}
    drawing = threading.Thread(target=lambda: answers.append(client.txt2img(**long)))
    drawing.start()
    seen = []
    end = time.monotonic() + 300
    while time.monotonic() < end and not (seen and seen[-1]["current_image"]):
        seen.append(client.get_progress())
        time.sleep(0.1)
    client.interrupt()
    drawing.join(300)
    assert answers[0].images == []
    assert answers[0].info["interrupted"] is True
    last = seen[-1]
    assert last["state"]["job_count"] == 1
    assert last["state"]["sampling_steps"] == 150
    assert 0 < last["progress"] < 1
    assert Image.open(io.BytesIO(base64.b64decode(last["current_image"]))).format == "PNG"
    assert client.get_progress()["progress"] == 0
    assert client.txt2img(**SMALL).image.size == (128, 128), "the next one is drawn"


def test_errors_are_in_the_webuis_form(server: Server) -> None:
    for path, status in (("txt2img", 400), ("nonsense", 404)):
        response = httpx.post(f"{server.url}/sdapi/v1/{path}", json={"steps": "many"})
        assert response.status_code == status
        assert set(response.json()) == {"error", "detail", "body", "errors"}
