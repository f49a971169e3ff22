"""Fields to parameters and back; pictures to files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runnables.parameters import ImageToImage, Inpaint, TextToImage
from ui import form, pictures, stage
from ui.client import ServiceError, problem

FILLED = {
    "prompt": "a red circle",
    "scheduler": "ddim",
    "num_inference_steps": 4.0,
    "guidance_scale": 2.5,
    "width": "64",
    "strength": 0.5,
    "hires": 1.5,
    "num_images_per_prompt": 2,
}


def values(**given: object) -> list[object]:
    return [given.get(name) for name in form.FIELDS]


@pytest.mark.parametrize("model", [TextToImage, ImageToImage, Inpaint])
def test_the_service_takes_what_the_fields_say(model: type[TextToImage]) -> None:
    task = model.task
    parameters = form.to_parameters(task, values(**FILLED), '{"guidance_rescale": 0.5}')
    parsed = model.model_validate(parameters)
    assert (parsed.num_inference_steps, parsed.seed, parsed.guidance_rescale) == (4, None, 0.5)
    assert ("strength" in parameters) == (task != "txt2img")
    assert parameters.get("hires") == (None if task == "inpaint" else {"scale": 1.5})


@pytest.mark.parametrize("more", ["{", "[1]", "3"])
def test_further_parameters_must_be_an_object(more: str) -> None:
    with pytest.raises(ServiceError) as caught:
        form.to_parameters("txt2img", values(prompt="a"), more)
    assert caught.value.field == "further parameters"


def test_what_is_no_number_is_left_to_the_service_to_refuse() -> None:
    parameters = form.to_parameters("txt2img", values(prompt="a", seed="many"), "")
    assert parameters["seed"] == "many"


def test_fields_filled_from_parameters_say_the_same_again() -> None:
    drawn = {
        **FILLED,
        "hires": {"scale": 1.5},
        "seed": 2**53 - 1,
        "guidance_rescale": 0.5,
        "output_format": "png",
    }
    fields, more = form.to_values(drawn)
    again = form.to_parameters("img2img", [fields[name] for name in form.FIELDS], more)
    assert again == {**drawn, "width": 64}


def test_a_second_pass_is_restored_as_a_field_or_as_it_was() -> None:
    resolved = {"scale": 2.0, "strength": 0.7, "num_inference_steps": 4, "upscaler": "latent"}
    fields, more = form.to_values({**FILLED, "hires": resolved})
    assert (fields["hires"], more) == (2.0, "")
    for change in ({"strength": 0.5}, {"upscaler": "lanczos"}, {"num_inference_steps": 9}):
        fields, more = form.to_values({**FILLED, "hires": {**resolved, **change}})
        assert fields["hires"] == form.ONCE
        again = form.to_parameters("txt2img", [fields[name] for name in form.FIELDS], more)
        assert again["hires"] == {**resolved, **change}


def test_an_image_to_start_from_goes_on_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8), "red").save(path)
    assert pictures.files("img2img", str(path), None) == {"img": path.read_bytes()}
    assert pictures.files("txt2img", str(path), None) == {}


def test_the_mask_is_white_where_any_layer_is_painted() -> None:
    background = Image.new("RGBA", (16, 8), "blue")
    first, second = (Image.new("RGBA", (16, 8), (0, 0, 0, 0)) for _ in range(2))
    first.paste((255, 255, 255, 90), (0, 0, 4, 4))
    second.paste((9, 9, 9, 255), (8, 0, 12, 4))
    sent = pictures.files("inpaint", None, {"background": background, "layers": [first, second]})
    mask = np.asarray(Image.open(io.BytesIO(sent["mask"])))
    assert mask.shape == (8, 16)
    assert np.unique(mask).tolist() == [0, 255]
    assert (mask == 255).sum() == 32
    assert mask[0, 0] == mask[0, 8] == 255
    assert Image.open(io.BytesIO(sent["img"])).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("task", "painted", "field"),
    [
        ("img2img", None, "img"),
        ("inpaint", None, "img"),
        ("inpaint", {"background": Image.new("RGBA", (8, 8)), "layers": []}, "mask"),
    ],
)
def test_missing_pictures_are_named(task: str, painted: dict[str, object], field: str) -> None:
    with pytest.raises(ServiceError) as caught:
        pictures.files(task, None, painted)
    assert caught.value.field == field


def test_errors_name_the_parameter() -> None:
    body = {"error": "steps: too many", "detail": [{"loc": ["data", "parameters", "steps"]}]}
    error = problem(body, 400)
    assert (error.field, error.message, error.status) == ("steps", "steps: too many", 400)
    assert problem("no JSON", 502).message == "the service answered 502"


def test_progress_is_told_in_words() -> None:
    assert "2 before you" in stage.progress({"state": "queued", "position": 2})
    shown = stage.progress({"state": "running", "step": 5, "steps": 20, "eta_s": 3.2})
    assert "Step 5 of 20 · about 3 s left" in shown
    assert "width:25%" in shown


def test_nothing_from_outside_becomes_html() -> None:
    assert "<b>" not in stage.message("<b>", kind="error")
    assert '"><b>' not in stage.progress({"preview": '"><b>'})
