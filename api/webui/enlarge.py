"""The WebUI's hires fix and its Extras tab, onto our second pass and our upscalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.http.validation import NullIsAbsent, validated
from api.webui.body import GenerationBody
from runnables.errors import InvalidInput
from runnables.parameters import MAX_IMAGES, Upscale

#: our names of what extras call otherwise
EXTRAS = {"upscaler": "upscaler_1", "scale": "upscaling_resize"}
#: what the WebUI calls ours; the operator's models have one name
NAMES = {"latent": "latent", "lanczos": "lanczos"}
#: fields that request what is not here -> why
REFUSED: Mapping[str, str] = {
    "hr_checkpoint_name": "both passes have one model",
    "hr_sampler_name": "both passes have one sampler",
    "hr_scheduler": "both passes have one sampler",
    "hr_prompt": "both passes have one prompt",
    "hr_negative_prompt": "both passes have one prompt",
    "firstphase_width": "width and height are the first pass's",
    "firstphase_height": "width and height are the first pass's",
}
#: fields of the second pass -> those of the first; a client that repeats the first requests nothing
FIRST = {
    "hr_checkpoint_name": "override_model",
    "hr_sampler_name": "sampler_name",
    "hr_scheduler": "scheduler",
    "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
    "firstphase_width": "width",
    "firstphase_height": "height",
}
SAME = {"", "None", "Use same checkpoint", "Use same sampler", "Use same scheduler", "Automatic"}


class Extras(NullIsAbsent):
    """The fields that both of the Extras tab's routes take."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    resize_mode: int = Field(0, description="0: times `upscaling_resize`")
    upscaling_resize: float = Field(2.0, gt=1, le=4)
    upscaler_1: str = Field("None", max_length=200)
    # only to be refused where they are set
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0
    gfpgan_visibility: float = 0
    codeformer_visibility: float = 0


class Single(Extras):
    """The body of `extra-single-image`."""

    image: str


class Listed(BaseModel):
    """One of several images."""

    data: str
    name: str = ""


class Several(Extras):
    """The body of `extra-batch-images`."""

    imageList: list[Listed] = Field(min_length=1, max_length=MAX_IMAGES)


def lists(upscalers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answer of `upscalers`."""
    unknown = dict.fromkeys(("model_name", "model_path", "model_url"))
    return [{"name": _theirs(one["name"]), **unknown, "scale": one["scale"]} for one in upscalers]


def latent_modes() -> list[dict[str, str]]:
    """Return the answer of `latent-upscale-modes`."""
    return [{"name": "Latent"}]


def parameters(body: Extras) -> Upscale:
    """Return the parameters that a body means. Raise InvalidInput for what is not available."""
    if body.resize_mode:
        raise InvalidInput("only resize_mode 0 is available", loc=("resize_mode",))
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(body, name):
            raise InvalidInput("faces are not restored here", loc=(name,))
    if body.upscaler_2 not in SAME and body.extras_upscaler_2_visibility:
        raise InvalidInput("there is no second upscaler", loc=("upscaler_2",))
    if body.upscaler_1 in SAME:
        raise InvalidInput("name an upscaler, such as Lanczos", loc=("upscaler_1",))
    wanted = {"upscaler": _ours(body.upscaler_1), "scale": body.upscaling_resize}
    return validated(Upscale, wanted, names=EXTRAS)


def hires(body: GenerationBody, native: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return our second pass, or None.

    Args:
        native: The model's own height and width, where they are known.

    Raises:
        InvalidInput: Something is not available; the field is named.
    """
    if not body.enable_hr:
        return None
    for name, why in REFUSED.items():
        value = getattr(body, name)
        if value and value not in SAME and value != getattr(body, FIRST[name]):
            raise InvalidInput(why, loc=(name,))
    return {
        "scale": _scale(body, native),
        "strength": body.denoising_strength,
        "num_inference_steps": body.hr_second_pass_steps or None,
        "upscaler": _ours(body.hr_upscaler),
    }


def _scale(body: GenerationBody, native: Mapping[str, Any]) -> float:
    """Return `hr_scale`, or what makes `hr_resize_x` x `hr_resize_y` of the first pass."""
    wanted = {"hr_resize_x": body.hr_resize_x, "hr_resize_y": body.hr_resize_y}
    sides = {
        "hr_resize_x": body.width or native.get("width"),
        "hr_resize_y": body.height or native.get("height"),
    }
    for name, side in wanted.items():
        if side and not sides[name]:
            raise InvalidInput("is relative to width and height: say them, too", loc=(name,))
    scales = {name: side / (sides[name] or side) for name, side in wanted.items() if side}
    if not scales:
        return body.hr_scale
    (name, scale), *_ = scales.items()
    if max(scales.values()) != min(scales.values()):
        raise InvalidInput(
            "another shape than that of width x height is not available", loc=("hr_resize_y",)
        )
    if any(side % 8 for side in wanted.values()):
        raise InvalidInput("hr_resize_x and hr_resize_y must be multiples of 8", loc=(name,))
    if not 1 < scale <= 4:
        raise InvalidInput("must be larger than the first pass, up to 4 times", loc=(name,))
    return scale


def _ours(name: str) -> str:
    return NAMES.get(name.lower(), name)


def _theirs(name: str) -> str:
    return name.capitalize() if name in NAMES else name
