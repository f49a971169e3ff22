"""Requests of the WebUI's API to parameters.

Fields that its clients always send and that mean nothing here are ignored, as the WebUI ignores
what it does not know. What would give another image than asked for is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from api.http.validation import validated
from api.webui import attention, controlnet, enlarge, samplers
from api.webui.body import Asked
from runnables.errors import InvalidInput, UnknownName
from runnables.parameters import ImageToImage, Inpaint, Parameters, TextToImage
from runnables.samplers.names import Sampler

#: fields that ask for what is not here, where they are set
REFUSED = {
    "restore_faces": "faces are not restored here",
    "styles": "styles are not kept here: write them into the prompts",
    "refiner_checkpoint": "images are drawn by one model",
    "tiling": "tiling is not available",
    "script_name": "scripts are not available",
    "subseed_strength": "variation seeds are not available",
    "seed_resize_from_h": "seeds are not resized here",
    "seed_resize_from_w": "seeds are not resized here",
}
#: our names of what the WebUI calls otherwise
NAMES = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler_name",
    "num_images_per_prompt": "batch_size",
    "strength": "denoising_strength",
    "controlnets": ".".join(controlnet.LOC),
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.strength": "denoising_strength",
    "hires.num_inference_steps": "hr_second_pass_steps",
    "hires.upscaler": "hr_upscaler",
}
_LORA = re.compile(r"<lora:([^:>]+)(?::([^:>]*))?[^>]*>")
CROP = 1
RESIZES = {0: "just resize", CROP: "crop and resize"}


def parameters(
    asked: Asked,
    model: type[Parameters],
    embeddings: Sequence[str],
    native: Mapping[str, Any] | None = None,
) -> Parameters:
    """The drawing that is asked for.

    Args:
        embeddings: names that ask for a textual inversion where they are words of a prompt.
        native: the description of the model, as GET /models has it, where that is known.

    Raises:
        InvalidInput: naming the field as the WebUI calls it.
    """
    _check(asked, model)
    ours = {
        **_loras(asked.prompt),
        **_prompts(asked),
        "controlnets": [unit.native() for unit in controlnet.units(asked.alwayson_scripts)],
        "embeddings": _embeddings(asked, embeddings),
        "seed": asked.seed if asked.seed >= 0 else None,
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.cfg_scale,
        "width": asked.width,
        "height": asked.height,
        "num_images_per_prompt": asked.batch_size * asked.n_iter,
        "clip_skip": _clip_skip(asked),
        "scheduler": _sampler(asked, native or {}),
        "hires": enlarge.hires(asked, native or {}),
    }
    if issubclass(model, ImageToImage):
        ours["strength"] = asked.denoising_strength
    return validated(model, ours, names=NAMES)


def task_of(asked: Asked, image: bool) -> type[Parameters]:
    """Which of our tasks it is.

    Args:
        image: whether it was sent to img2img.
    """
    if not image:
        return TextToImage
    if not asked.init_images:
        raise UnknownName("Init image not found", loc=("init_images",))
    return Inpaint if asked.mask else ImageToImage


def _check(asked: Asked, model: type[Parameters]) -> None:
    """Raises InvalidInput for what is not available, naming the field."""
    for name, why in REFUSED.items():
        value = getattr(asked, name)
        if value and value not in (-1, "None"):
            raise InvalidInput(why, loc=(name,))
    for name, script in asked.alwayson_scripts.items():
        if _wanted(script) and not controlnet.is_ours(name):
            raise InvalidInput(f"the script {name} is not available", loc=("alwayson_scripts",))
    if model is TextToImage:
        return
    if asked.enable_hr:
        raise InvalidInput("the second pass is txt2img's", loc=("enable_hr",))
    if asked.resize_mode not in RESIZES:
        known = ", ".join(f"{number} ({name})" for number, name in RESIZES.items())
        raise InvalidInput(f"resize_mode is not available; known: {known}", loc=("resize_mode",))


def _sampler(asked: Asked, native: Mapping[str, Any]) -> Sampler | None:
    prediction = native.get("prediction", "epsilon")
    for field in ("sampler_name", "sampler_index"):
        if name := getattr(asked, field):
            return samplers.resolve(
                name, asked.scheduler or "", prediction=prediction, loc=(field,)
            )
    return None


def _wanted(script: object) -> bool:
    """Whether an always-on script does anything: clients send those they know switched off."""
    arguments = script.get("args") if isinstance(script, dict) else script
    return bool(arguments) and arguments != [False]


def _loras(prompt: str) -> dict[str, Any]:
    """`<lora:name:weight>` in the prompt, as our parameter, which says what is wrong with it."""
    tags = _LORA.findall(prompt)
    named = [{"name": name, "weight": weight or 1} for name, weight in tags]
    return {"loras": named} if named else {}


def _embeddings(asked: Asked, names: Sequence[str]) -> list[str]:
    """The names that are whole words of either prompt, in any letter case; the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w)({re.escape(name)})(?!\w)" for name in ordered)
    if not pattern:
        return []
    text = _LORA.sub("", asked.prompt) + "\n" + asked.negative_prompt
    found = re.finditer(pattern, text, re.IGNORECASE)
    return list(dict.fromkeys(ordered[(one.lastindex or 1) - 1] for one in found))


def _prompts(asked: Asked) -> dict[str, str]:
    """Both prompts; with weights where one of them has any."""
    both = [_LORA.sub("", asked.prompt), asked.negative_prompt]
    weighted = attention.compel(both)
    syntax = "compel" if weighted else "plain"
    prompt, negative = weighted or map(attention.plain, both)
    return {"prompt": prompt, "negative_prompt": negative, "prompt_syntax": syntax}


def _clip_skip(asked: Asked) -> int:
    """The WebUI counts from 1, which leaves nothing out."""
    stop = asked.override_settings.get("CLIP_stop_at_last_layers", 1)
    if not isinstance(stop, int) or not 1 <= stop <= 12:
        raise InvalidInput(
            "CLIP_stop_at_last_layers must be a whole number from 1 to 12",
            loc=("override_settings", "CLIP_stop_at_last_layers"),
        )
    return stop - 1
