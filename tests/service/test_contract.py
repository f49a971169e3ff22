"""The HTTP contract, over the wire, with the embedded model."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import bentoml
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.server import ROOT, Server

QUICK = {"prompt": "a red circle on a blue background", "num_inference_steps": 2, "seed": 1}


def picture(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def post(server: Server, path: str, body: object, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=300)


def curl(server: Server, *arguments: str, output: Path) -> Image.Image:
    subprocess.run(["curl", "-sSf", "-X", "POST", *arguments, "--output", output], check=True)
    return Image.open(output)


def test_first_curl(server: Server, tmp_path: Path) -> None:
    image = curl(
        server,
        f"{server.url}/txt2img",
        *("-H", "Content-Type: application/json"),
        *("-d", '{"prompt":"View of a cyberpunk city"}'),
        output=tmp_path / "output.jpg",
    )
    assert image.format == "JPEG"
    assert image.size == (128, 128)


def test_second_curl(server: Server, tmp_path: Path) -> None:
    image = curl(
        server,
        f"{server.url}/img2img",
        *("-H", "Content-Type: multipart/form-data"),
        *("-F", f"img=@{ROOT / 'input.jpg'}"),
        *("-F", 'data={"prompt":"View of a cyberpunk city"}'),
        output=tmp_path / "output.jpg",
    )
    assert image.format == "JPEG"


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [("a cat", "made by a small demo model"), ("gluon", "knows none of these words; it knows")],
)
def test_the_demo_model_says_what_it_knows(server: Server, prompt: str, wanted: str) -> None:
    body = {**QUICK, "prompt": prompt}
    assert wanted in post(server, "/txt2img", body).headers["hint"]
    as_json = post(server, "/txt2img", {**body, "output_format": "json"}).json()
    assert wanted in as_json["images"][0]["hint"]
    job = post(server, "/jobs", {"task": "txt2img", "parameters": body}).json()
    while not job["images"]:
        job = httpx.get(f"{server.url}/jobs/{job['id']}").json()
        assert job["state"] in ("queued", "running", "succeeded")
    assert wanted in job["images"][0]["hint"]
    assert wanted in httpx.get(server.url + job["images"][0]["url"]).headers["hint"]


def test_the_model_draws_what_is_asked(server: Server) -> None:
    body = {"prompt": "a red circle on a blue background", "seed": 3, "output_format": "png"}
    pixels = np.asarray(picture(post(server, "/txt2img", body))).astype(int)
    middle, corners = pixels[54:74, 54:74].mean((0, 1)), pixels[:10, :10].mean((0, 1))
    assert middle[0] > 120, middle
    assert middle[0] > middle[1] + 60, middle
    assert middle[0] > middle[2] + 60, middle
    assert corners[2] > 120, corners
    assert corners[2] > corners[0] + 60, corners


def test_bentoml_client(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url) as client:
        drawn = client.txt2img(QUICK)
        assert Image.open(io.BytesIO(drawn)).size == (128, 128)
        file = ROOT / "input.jpg"
        again = client.img2img(img=file, data=QUICK)
        assert Image.open(io.BytesIO(again)).format == "JPEG"
        patched = client.inpaint(img=file, mask=file, data=QUICK)
        assert Image.open(io.BytesIO(patched)).format == "JPEG"


def test_headers_tell_what_was_drawn(server: Server) -> None:
    response = post(server, "/txt2img", {**QUICK, "scheduler": "Euler a", "guidance_scale": 4})
    told = response.headers
    assert told["seed"] == "1"
    assert (told["width"], told["height"]) == ("128", "128")
    assert told["scheduler"] == "euler_a"
    assert told["num-inference-steps"] == "2"
    assert float(told["guidance-scale"]) == 4
    assert told["finish-reason"] == "success"
    assert len(told["x-request-id"]) == 32
    for stage in ("queue", "encode", "denoise", "decode", "format"):
        assert f"{stage};dur=" in told["server-timing"]


def test_the_same_seed_gives_the_same_image(server: Server) -> None:
    ask = {**QUICK, "output_format": "png"}
    first, second = (np.asarray(picture(post(server, "/txt2img", ask))) for _ in range(2))
    assert (first == second).all()
    other = np.asarray(picture(post(server, "/txt2img", {**ask, "seed": 2})))
    assert (first != other).any()


def test_a_drawn_seed_is_told_and_repeats_the_image(server: Server) -> None:
    ask = {"prompt": "sea", "num_inference_steps": 2, "output_format": "png"}
    first = post(server, "/txt2img", ask)
    again = post(server, "/txt2img", {**ask, "seed": int(first.headers["seed"])})
    assert (np.asarray(picture(first)) == np.asarray(picture(again))).all()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_accept_chooses_the_format_and_parameters_travel_inside(server: Server, kind: str) -> None:
    image = picture(post(server, "/txt2img", QUICK, Accept=f"image/{kind}"))
    assert image.format == kind.upper()
    if kind == "png":
        inside, text = json.loads(image.text["sd-parameters"]), image.text["parameters"]
    else:
        exif = image.getexif()
        inside = json.loads(exif[0x010E])
        text = exif.get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    assert inside["seed"] == 1
    assert inside["prompt"] == QUICK["prompt"]
    assert text.startswith(str(QUICK["prompt"]))
    assert "Steps: 2" in text
    assert "Seed: 1" in text


def test_several_images_go_out_as_json(server: Server) -> None:
    response = post(server, "/txt2img", {**QUICK, "num_images_per_prompt": 3})
    drawn = response.json()["images"]
    assert [one["seed"] for one in drawn] == [1, 2, 3]
    assert {one["finish_reason"] for one in drawn} == {"success"}
    sizes = {Image.open(io.BytesIO(base64.b64decode(one["image"]))).size for one in drawn}
    assert sizes == {(128, 128)}
    assert response.json()["parameters"]["num_inference_steps"] == 2


def test_img2img_keeps_the_aspect_ratio(server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 150), "green").save(buffer, "PNG")
    response = httpx.post(
        f"{server.url}/img2img",
        files={"img": ("wide.png", buffer.getvalue(), "image/png")},
        data={"data": json.dumps(QUICK)},
        timeout=300,
    )
    width, height = picture(response).size
    assert width % 8 == 0
    assert 1.8 < width / height < 2.2
    assert 0.8 < width * height / 128**2 < 1.25


def test_inpaint_redraws_the_white_area_only(server: Server) -> None:
    whole, mask = Image.new("RGB", (128, 128), (30, 70, 215)), Image.new("L", (128, 128), 0)
    mask.paste(255, (40, 40, 88, 88))
    files = {}
    for name, image in (("img", whole), ("mask", mask)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[name] = (f"{name}.png", buffer.getvalue(), "image/png")
    body = {"prompt": "a red circle on a blue background", "seed": 1, "output_format": "png"}
    response = httpx.post(
        f"{server.url}/inpaint", files=files, data={"data": json.dumps(body)}, timeout=300
    )
    pixels = np.asarray(picture(response)).astype(int)
    assert np.abs(pixels[:24, :24] - (30, 70, 215)).mean() < 20, "the corner is kept"
    assert np.abs(pixels[56:72, 56:72] - (30, 70, 215)).mean() > 30, "the middle is redrawn"


def test_what_there_is(server: Server) -> None:
    names = {one["name"] for one in httpx.get(f"{server.url}/samplers").json()}
    assert {"ddim", "euler_a", "dpmpp_2m_karras", "unipc", "lcm"} <= names
    (model,) = httpx.get(f"{server.url}/models").json()
    assert model["name"] == "embedded"
    for path in ("/healthz", "/livez", "/readyz"):
        assert httpx.get(f"{server.url}{path}").status_code == 200


def test_metrics_count_the_work(server: Server) -> None:
    post(server, "/txt2img", QUICK)
    text = httpx.get(f"{server.url}/metrics").text
    assert 'sd_stage_seconds_count{stage="denoise"}' in text
    assert "sd_queue_depth" in text
    assert "sd_batch_rows_bucket" in text
    assert 'sd_requests_total{key="",status="200",task="txt2img"}' in text
    assert 'sd_images_total{finish_reason="success",key="",model="embedded"}' in text


def test_refusals_are_counted(server: Server) -> None:
    assert post(server, "/txt2img", {}).status_code == 400
    text = httpx.get(f"{server.url}/metrics").text
    assert 'sd_requests_total{key="",status="400",task="txt2img"}' in text


def test_errors_carry_a_request_id_too(server: Server) -> None:
    assert len(post(server, "/txt2img", {}).headers["x-request-id"]) == 32


def test_long_prompts_of_any_script_fit_into_every_format(server: Server) -> None:
    ask = {"prompt": "\U0001f600" * 4000, "negative_prompt": "\u65e5" * 4000, "seed": 1}
    for kind in ("jpeg", "png", "webp"):
        body = {**ask, "num_inference_steps": 1, "output_format": kind}
        assert picture(post(server, "/txt2img", body)).format == kind.upper()


def test_swagger_page_and_document(server: Server) -> None:
    page = httpx.get(server.url).text
    assert "googletagmanager" not in page
    assert httpx.get(f"{server.url}/static_content/swagger-ui-bundle.js").status_code == 200
    document = httpx.get(f"{server.url}/docs.json").json()
    assert {"/txt2img", "/img2img", "/inpaint", "/samplers"} <= set(document["paths"])


def test_upscale(server: Server) -> None:
    files = {"img": (ROOT / "input.jpg").read_bytes()}
    data = {"data": json.dumps({"scale": 1.5, "output_format": "png"})}
    response = httpx.post(f"{server.url}/upscale", files=files, data=data, timeout=300)
    before = Image.open(ROOT / "input.jpg")
    assert picture(response).size == (round(before.width * 1.5), round(before.height * 1.5))
    assert "seed" not in response.headers


def test_second_pass(server: Server) -> None:
    body = {**QUICK, "height": 64, "width": 96, "hires": {"scale": 2, "strength": 0.5}}
    response = post(server, "/txt2img", body)
    assert picture(response).size == (192, 128)
    assert (response.headers["height"], response.headers["width"]) == ("128", "192")


def test_models_are_chosen_by_name(server: Server) -> None:
    (served,) = httpx.get(f"{server.url}/models").json()
    assert served["loaded"] is True
    picture(post(server, "/txt2img", {**QUICK, "model": served["name"]}))
    refused = post(server, "/txt2img", {**QUICK, "model": "another"})
    assert refused.status_code == 404
    assert refused.json()["detail"][0]["loc"] == ["model"]
