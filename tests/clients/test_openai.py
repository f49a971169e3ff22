"""The OpenAI Python SDK, unmodified."""

from __future__ import annotations

import base64
import io
import re
import time

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.service.server import Server

PROMPT = "a red circle on a blue background"
BLUE = (30, 70, 215)
QUICK = {"num_inference_steps": 4, "seed": 1}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def picture(text: str | None) -> Image.Image:
    assert text
    return Image.open(io.BytesIO(base64.b64decode(text)))


def png(image: Image.Image) -> tuple[str, bytes, str]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ("image.png", buffer.getvalue(), "image/png")


def test_generate(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 2})
    assert answer.data is not None
    image = picture(answer.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (128, 128))
    assert answer.size == "128x128"
    assert answer.created > 1_700_000_000


def test_n_size_output_format_and_seeds(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        model="gpt-image-1.5",
        prompt=PROMPT,
        n=3,
        size="96x64",
        output_format="webp",
        quality="low",
        background="auto",
        moderation="low",
        user="somebody",
        extra_body=QUICK,
    )
    assert answer.data is not None
    drawn = [picture(entry.b64_json) for entry in answer.data]
    assert [(image.format, image.size) for image in drawn] == [("WEBP", (96, 64))] * 3
    assert [entry.seed for entry in answer.data] == [1, 2, 3]  # type: ignore[attr-defined]
    assert answer.output_format == "webp"


def test_response_format_url_is_an_address_that_answers_the_image(client: openai.OpenAI) -> None:
    given = {"prompt": PROMPT, "extra_body": QUICK, "size": "auto"}
    (as_url,) = client.images.generate(response_format="url", **given).data or ()
    (as_text,) = client.images.generate(response_format="b64_json", **given).data or ()
    assert as_url.b64_json is None
    assert as_url.url
    answer = httpx.get(as_url.url)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == base64.b64decode(as_text.b64_json or "")
    for wrong in (as_url.url[:-1], as_url.url.replace("expires=", "expires=9")):
        assert httpx.get(wrong).status_code == 404


def test_what_has_no_effect_is_told(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(
        prompt=PROMPT,
        background="transparent",
        quality="high",
        output_compression=80,
        output_format="webp",
        extra_body=QUICK,
    )
    assert raw.headers["x-ignored"] == "background, quality, output_compression"
    assert int(raw.headers["openai-processing-ms"]) > 0
    assert re.fullmatch("req_[0-9a-f]{32}", raw.headers["x-request-id"])
    assert raw.parse().background == "opaque"
    plain = client.images.with_raw_response.generate(prompt=PROMPT, extra_body=QUICK)
    assert "x-ignored" not in plain.headers


def test_ten_images_and_a_long_prompt(client: openai.OpenAI) -> None:
    words = ("a red circle on a blue background, " * 1000)[:32_000]
    answer = client.images.generate(
        prompt=words, n=10, size="64x64", extra_body={**QUICK, "num_inference_steps": 1}
    )
    assert len(answer.data or ()) == 10
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt=words + "x", extra_body=QUICK)
    assert caught.value.param == "prompt"


def test_stream_with_partial_images(client: openai.OpenAI) -> None:
    with client.images.generate(
        prompt=PROMPT,
        stream=True,
        partial_images=2,
        output_format="jpeg",
        extra_body={"num_inference_steps": 30, "seed": 1},
    ) as stream:
        events = list(stream)
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert 1 <= len(partial) <= 2
    assert [event.type for event in events[len(partial) :]] == ["image_generation.completed"]
    final = picture(events[-1].b64_json)
    assert (final.format, final.size) == ("JPEG", (128, 128))
    preview = picture(partial[-1].b64_json)
    small = np.asarray(final.resize(preview.size)).astype(int)
    other = np.asarray(Image.new("RGB", preview.size, "white")).astype(int)
    seen = np.asarray(preview.convert("RGB")).astype(int)
    assert np.abs(seen - small).mean() < np.abs(other - small).mean(), "it shows what will be"


def test_stream_without_partial_images(client: openai.OpenAI) -> None:
    with client.images.generate(prompt=PROMPT, stream=True, n=2, extra_body=QUICK) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_generation.completed"] * 2


def cancelled(server: Server) -> float:
    """Return how many txt2img requests /metrics counts as cancelled."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(r'^sd_requests_total\{key="",status="499",task="txt2img"\} (\S+)', text, re.M)
    return float(found[1]) if found else 0.0


def test_a_stream_that_is_closed_is_cancelled(client: openai.OpenAI, server: Server) -> None:
    before = cancelled(server)
    long = {"num_inference_steps": 150, "seed": 1}
    with client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, n=4, extra_body=long
    ) as stream:
        next(iter(stream))
        id = stream.response.headers["x-request-id"]
        assert httpx.get(f"{server.url}/jobs/{id}").json()["state"] == "running"
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if (state := httpx.get(f"{server.url}/jobs/{id}").json()["state"]) != "running":
            break
        time.sleep(0.1)
    assert state == "cancelled"
    while time.monotonic() < end and cancelled(server) == before:
        time.sleep(0.1)
    assert cancelled(server) == before + 1


def test_edit_redraws_what_is_transparent(client: openai.OpenAI) -> None:
    whole, mask = Image.new("RGB", (128, 128), BLUE), Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (40, 40, 88, 88))
    answer = client.images.edit(
        image=png(whole), mask=png(mask), prompt=PROMPT, n=1, size="auto", extra_body={"seed": 1}
    )
    pixels = np.asarray(picture((answer.data or ())[0].b64_json)).astype(int)
    assert np.abs(pixels[:24, :24] - BLUE).mean() < 20, "the corner is kept"
    assert np.abs(pixels[56:72, 56:72] - BLUE).mean() > 30, "the middle is redrawn"


def test_edit_takes_the_images_own_transparency(client: openai.OpenAI) -> None:
    image = Image.new("RGBA", (128, 128), (*BLUE, 255))
    image.paste((*BLUE, 0), (40, 40, 88, 88))
    answer = client.images.edit(image=[png(image)], prompt=PROMPT, extra_body={"seed": 1})
    pixels = np.asarray(picture((answer.data or ())[0].b64_json)).astype(int)
    assert np.abs(pixels[:24, :24] - BLUE).mean() < 20
    assert np.abs(pixels[56:72, 56:72] - BLUE).mean() > 30


def test_edit_without_mask_redraws_all_and_streams(client: openai.OpenAI) -> None:
    image = png(Image.new("RGB", (128, 64), BLUE))
    with client.images.edit(image=image, prompt=PROMPT, stream=True, extra_body=QUICK) as stream:
        (event,) = list(stream)
    assert event.type == "image_edit.completed"
    width, height = picture(event.b64_json).size
    assert width > height


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id).id == model.id == "embedded"
    answer = client.images.generate(model=model.id, prompt=PROMPT, extra_body=QUICK)
    assert answer.data
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/another")
    assert caught.value.code == "model_not_found"


def test_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(model="another", prompt=PROMPT)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    wrong: list[tuple[dict[str, object], str]] = [
        ({"prompt": ""}, "prompt"),
        ({"prompt": PROMPT, "size": "100x100"}, "size"),
        ({"prompt": PROMPT, "size": "large"}, "size"),
        ({"prompt": PROMPT, "n": 11}, "n"),
        ({"prompt": PROMPT, "background": "blue"}, "background"),
        ({"prompt": PROMPT, "output_format": "svg"}, "output_format"),
        ({"prompt": PROMPT, "extra_body": {"sead": 1}}, "sead"),
        ({"prompt": PROMPT, "extra_body": {"frame_count": 4}}, "frame_count"),
    ]
    for given, field in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(**given)  # type: ignore[call-overload]
        assert caught.value.param == field
        assert caught.value.type == "invalid_request_error"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_wrong_edits_are_refused(client: openai.OpenAI) -> None:
    image, small = Image.new("RGBA", (64, 64), "red"), Image.new("RGBA", (32, 32))
    cases = [
        ({"image": [png(image), png(image)]}, openai.BadRequestError, "image"),
        ({"image": [png(image)] * 16}, openai.BadRequestError, "image"),
        ({"image": png(image), "mask": png(small)}, openai.BadRequestError, "mask"),
        ({"image": png(image), "mask": png(image)}, openai.BadRequestError, "mask"),
        ({"image": ("a.png", b"no", "image/png")}, openai.APIStatusError, "image"),
    ]
    for given, kind, field in cases:
        with pytest.raises(kind) as caught:
            client.images.edit(prompt=PROMPT, **given)
        assert caught.value.param == field


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_variation_needs_no_prompt(client: openai.OpenAI) -> None:
    image = png(Image.new("RGB", (64, 64), BLUE))
    answer = client.images.create_variation(image=image, n=2, size="256x256", extra_body=QUICK)
    assert [picture(one.b64_json).size for one in answer.data or ()] == [(256, 256)] * 2


def test_unknown_paths_are_told_in_the_same_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="x", messages=[])
    assert caught.value.type == "invalid_request_error"
