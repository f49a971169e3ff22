"""Requests of the WebUI's API to parameters.

Fields that its clients always send and that mean nothing here are ignored, as the WebUI ignores
what it does not know. What would give another image than asked for is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageOps
from pydantic import ConfigDict, Field

from api import forms
from api.webui import attention, controlnet
from api.webui.controlnet import Unit
from runnables.errors import InvalidInput, UnknownName
from runnables.parameters import ImageToImage, Inpaint, Parameters, TextToImage

Resolve = Callable[[str, str], str]
MAX_IMAGES = 8
#: fields that ask for what is not here, where they are set
REFUSED = {
    "restore_faces": "faces are not restored here",
    "tiling": "tiling is not available",
    "script_name": "scripts are not available",
    "subseed_strength": "variation seeds are not available",
    "seed_resize_from_h": "seeds are not resized here",
    "seed_resize_from_w": "seeds are not resized here",
}
_LORA = re.compile(r"<lora:([^:>]+)(?::([^:>]*))?[^>]*>")
RESIZES = {0: "just resize", 1: "crop and resize"}


class Asked(forms.NullIsAbsent):
    """The WebUI's fields of txt2img and img2img that have a meaning here."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int = Field(1, ge=1, le=MAX_IMAGES)
    n_iter: int = Field(1, ge=1, le=MAX_IMAGES)
    sampler_name: str | None = Field(None, max_length=100)
    sampler_index: str | None = Field(None, max_length=100)
    scheduler: str | None = Field(None, max_length=100)
    denoising_strength: float = 0.75
    init_images: list[str] = Field(default=[], max_length=1)
    mask: str | None = None
    inpainting_mask_invert: int = Field(0, ge=0, le=1)
    resize_mode: int = 0
    include_init_images: bool = False
    send_images: bool = True
    override_settings: dict[str, Any] = Field(default_factory=dict)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    # only to be refused where they are set
    hr_checkpoint_name: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    firstphase_width: int = 0
    firstphase_height: int = 0
    restore_faces: bool = False
    tiling: bool = False
    script_name: str | None = None
    subseed_strength: float = 0
    seed_resize_from_h: int = 0
    seed_resize_from_w: int = 0


def check(asked: Asked) -> None:
    """Raises InvalidInput for what is not available, naming the field."""
    for name, why in REFUSED.items():
        value = getattr(asked, name)
        if value and value != -1:
            raise InvalidInput(why, loc=(name,))
    for name, script in asked.alwayson_scripts.items():
        if _wanted(script) and not controlnet.is_ours(name):
            raise InvalidInput(f"the script {name} is not available", loc=("alwayson_scripts",))


def _wanted(script: object) -> bool:
    """Whether an always-on script does anything: clients send those they know switched off."""
    arguments = script.get("args") if isinstance(script, dict) else script
    return bool(arguments) and arguments != [False]


def parameters(
    asked: Asked,
    model: type[Parameters],
    resolve: Resolve,
    units: Sequence[Unit],
    embeddings: Sequence[str],
    hires: dict[str, Any] | None = None,
) -> Parameters:
    """The drawing that is asked for.

    Args:
        resolve: the WebUI's names of a sampler and of a spacing to ours.
        units: its ControlNets.
        embeddings: names that ask for a textual inversion where they are words of a prompt.
        hires: our second pass.

    Raises:
        InvalidInput: naming the field.
    """
    sampler = asked.sampler_name or asked.sampler_index
    native = {
        **_loras(asked.prompt),
        **_prompts(asked),
        "controlnets": [unit.native() for unit in units],
        "embeddings": _embeddings(asked, embeddings),
        "seed": asked.seed if asked.seed >= 0 else None,
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.cfg_scale,
        "width": asked.width,
        "height": asked.height,
        "num_images_per_prompt": asked.batch_size * asked.n_iter,
        "clip_skip": _clip_skip(asked),
        "scheduler": resolve(sampler, asked.scheduler or "") if sampler else None,
        "hires": hires,
    }
    if issubclass(model, ImageToImage):
        native["strength"] = asked.denoising_strength
    return forms.validated(model, native)


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


def fitted(image: Image.Image, asked: Asked) -> Image.Image:
    """An input as `resize_mode` says; what is only stretched is left to the pipeline.

    Raises:
        InvalidInput: a mode that is not here.
    """
    if asked.resize_mode not in RESIZES:
        known = ", ".join(f"{number} ({name})" for number, name in RESIZES.items())
        raise InvalidInput(f"resize_mode is not available; known: {known}", loc=("resize_mode",))
    if asked.resize_mode == 1 and asked.width and asked.height:
        return ImageOps.fit(image, (asked.width, asked.height))
    return image


def redrawn(mask: Image.Image, asked: Asked) -> Image.Image:
    """A mask in our polarity: white is redrawn."""
    return ImageOps.invert(mask) if asked.inpainting_mask_invert else mask


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
