"""The parameters in an image's file, as our own endpoints take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.http.validation import check_values
from runnables.errors import InvalidInput
from runnables.images.codec import JSON_TEXT
from runnables.images.infotext import MAX_TEXT
from runnables.parameters import ImageToImage, Parameters, TextToImage

#: field of the WebUI's API -> setting in its infotext
FIELDS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "steps": "Steps",
    "sampler_name": "Sampler",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size-1",
    "height": "Size-2",
    "denoising_strength": "Denoising strength",
    "hr_scale": "Hires upscale",
    "hr_second_pass_steps": "Hires steps",
    "hr_upscaler": "Hires upscaler",
}
Translate = Callable[[dict[str, Any], type[Parameters]], Parameters]


def ours(texts: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the parameters that this service wrote into the file; None where it did not."""
    text = texts.get(JSON_TEXT, "")
    if len(text) > MAX_TEXT:
        return None
    try:
        content = json.loads(text)
        check_values(content)
    except (ValueError, RecursionError, InvalidInput):
        return None
    return content if isinstance(content, dict) and "prompt" in content else None


def translated(
    settings: Mapping[str, str], models: Sequence[str], translate: Translate
) -> dict[str, Any] | None:
    """Return the parameters that an infotext means; None where there are none.

    What cannot be had here, such as a sampler, is left out.

    Args:
        settings: The parsed infotext.
        models: The names of models that there are.
        translate: Makes parameters of a body of the WebUI's txt2img or img2img.
    """
    if not settings:
        return None
    body: dict[str, Any] = {f: settings[name] for f, name in FIELDS.items() if name in settings}
    body["enable_hr"] = "hr_scale" in body
    options: dict[str, Any] = {}
    if (skip := settings.get("Clip skip", "")).isdecimal():
        options["CLIP_stop_at_last_layers"] = int(skip[:9])
    if (model_name := settings.get("Model")) in models:
        options["sd_model_checkpoint"] = model_name
    body["override_settings"] = options
    model = ImageToImage if "denoising_strength" in body and not body["enable_hr"] else TextToImage
    while True:
        try:
            found = translate(body, model)
        except InvalidInput as error:
            if body.pop(str(error.loc[0]) if error.loc else "", None) is None:
                return None
        else:
            parameters = found.model_dump(mode="json", exclude_defaults=True)
            strength = {"strength": found.strength} if isinstance(found, ImageToImage) else {}
            return {**parameters, **strength}
