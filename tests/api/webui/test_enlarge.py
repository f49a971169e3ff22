"""The WebUI's second pass and Extras tab in our terms; what has none is named."""

from __future__ import annotations

from typing import Any

import pytest

from api.webui import enlarge
from api.webui.body import GenerationBody
from runnables.errors import InvalidInput
from runnables.parameters import Upscale

NATIVE = {"width": 64, "height": 64}


def second_pass(**given: Any) -> dict[str, Any] | None:
    return enlarge.hires(GenerationBody(enable_hr=True, **given), NATIVE)


def test_no_second_pass_unless_it_is_switched_on() -> None:
    assert enlarge.hires(GenerationBody(hr_scale=2, hr_prompt="other"), NATIVE) is None


def test_a_second_pass_as_the_webui_leaves_it() -> None:
    assert second_pass() == {
        "scale": 2.0,
        "strength": 0.75,
        "num_inference_steps": None,
        "upscaler": "latent",
    }


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        ({"hr_scale": 1.5}, 1.5),
        ({"hr_resize_x": 128}, 2.0),
        ({"hr_resize_y": 96, "hr_scale": 3}, 1.5),
        ({"hr_resize_x": 128, "hr_resize_y": 192, "width": 64, "height": 96}, 2.0),
    ],
)
def test_sizes_become_a_scale(given: dict[str, Any], scale: float) -> None:
    found = second_pass(**given)
    assert found and found["scale"] == scale


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"hr_resize_x": 128, "hr_resize_y": 192}, "hr_resize_y"),
        ({"hr_resize_x": 100}, "hr_resize_x"),
        ({"hr_resize_x": 32}, "hr_resize_x"),
        ({"hr_resize_y": 512}, "hr_resize_y"),
        ({"hr_checkpoint_name": "other"}, "hr_checkpoint_name"),
        ({"hr_sampler_name": "DDIM"}, "hr_sampler_name"),
        ({"hr_scheduler": "Karras"}, "hr_scheduler"),
        ({"hr_prompt": "x"}, "hr_prompt"),
        ({"hr_negative_prompt": "x"}, "hr_negative_prompt"),
        ({"firstphase_width": 64}, "firstphase_width"),
    ],
)
def test_what_is_not_here_is_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        second_pass(**given)
    assert caught.value.loc == (field,)


def test_extras_become_an_upscale() -> None:
    asked = enlarge.Single(image="x", upscaler_1="lanczos", upscaling_resize=3, upscaler_2=None)  # type: ignore[arg-type]
    assert enlarge.parameters(asked) == Upscale(upscaler="lanczos", scale=3)
    own = enlarge.parameters(enlarge.Single(image="x", upscaler_1="My-Model"))
    assert own == Upscale(upscaler="My-Model", scale=2)


def test_lists_are_the_webuis() -> None:
    told = enlarge.lists([{"name": "lanczos", "scale": 2}, {"name": "tiny-x4", "scale": 4}])
    assert [(one["name"], one["scale"]) for one in told] == [("Lanczos", 2), ("tiny-x4", 4)]
    assert {"model_name", "model_path", "model_url"} <= set(told[0])
