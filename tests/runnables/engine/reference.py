"""diffusers' own pipelines, called as the contract says: what the engine must equal."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from runnables.parameters import ImageToImage, TextToImage
from runnables.samplers.names import DEFAULT
from runnables.samplers.scheduler import make_scheduler

#: what pipelines for flow matching read from the scheduler's config, whatever its class
SHIFT = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")


def generate(
    folder: Path,
    parameters: TextToImage,
    image: Image.Image | None = None,
    mask: Image.Image | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8 of one image, by diffusers' pipeline for this task."""
    diffuser = _with_sampler(folder, type(parameters), parameters)
    call: dict[str, Any] = {
        "prompt": parameters.prompt,
        "negative_prompt": parameters.negative_prompt or None,
        "num_inference_steps": parameters.num_inference_steps,
        "guidance_scale": parameters.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(parameters.seed or 0),
        "output_type": "np",
    }
    if "negative_prompt" not in inspect.signature(diffuser.__call__).parameters:
        call |= _negative(diffuser, call.pop("negative_prompt"))
    if image is not None:
        assert isinstance(parameters, ImageToImage)
        call |= {"image": image, "strength": parameters.strength}
    if mask is not None:
        call["mask_image"] = mask
    sized = hasattr(diffuser, "transformer")  # those take no size from the image
    if sized or not isinstance(parameters, ImageToImage) or mask is not None:
        call |= {"height": parameters.height, "width": parameters.width}
    if parameters.clip_skip:
        call["clip_skip"] = parameters.clip_skip
    if parameters.guidance_rescale:
        call["guidance_rescale"] = parameters.guidance_rescale
    with _shown_text_model(diffuser):
        _pass_generator(diffuser, call["generator"])
        if parameters.hires:
            call = second_pass(diffuser, parameters, call)
            diffuser = _with_sampler(folder, ImageToImage, parameters)
            channels = diffuser.vae.config.latent_channels  # Z-Image's takes latents for a picture
            diffuser.image_processor.register_to_config(vae_latent_channels=channels)
            _pass_generator(diffuser, call["generator"])
        pixels = diffuser(**call).images[0]
    return (pixels * 255).round().astype(np.uint8)


def _pass_generator(diffuser: Any, generator: torch.Generator) -> None:
    """The pipelines for flow matching forget to: a stochastic sampler would ignore the seed."""
    step = diffuser.scheduler.step
    if hasattr(diffuser, "transformer") and "generator" in inspect.signature(step).parameters:
        diffuser.scheduler.step = partial(step, generator=generator)


def _negative(diffuser: Any, prompt: str | None) -> dict[str, Any]:
    """FLUX.2 klein's pipeline takes a negative prompt only where it is encoded."""
    with torch.inference_mode():
        return {"negative_prompt_embeds": diffuser.encode_prompt(prompt)[0]} if prompt else {}


@contextmanager
def _shown_text_model(diffuser: Any) -> Iterator[None]:
    """diffusers' clip_skip looks for the norm where it once was; peft and compel must not."""
    both = (diffuser.text_encoder, getattr(diffuser, "text_encoder_2", None))
    shown = [one for one in both if one is not None and not hasattr(one, "text_model")]
    for encoder in shown:
        vars(encoder)["text_model"] = encoder
    try:
        yield
    finally:
        for encoder in shown:
            del vars(encoder)["text_model"]


def second_pass(diffuser: Any, parameters: TextToImage, first: dict[str, Any]) -> dict[str, Any]:
    """Run the first pass, and return the call of the img2img pipeline.

    It gets the stretched latents or picture, and draws on from the same generator.
    """
    hires = parameters.hires
    assert hires is not None and parameters.height and parameters.width
    factor, sized = diffuser.vae_scale_factor, hasattr(diffuser, "transformer")
    multiple = 2 * factor if sized else 8  # transformers see patches of 2x2 latents
    height, width = (
        round(side * hires.scale / multiple) * multiple
        for side in (parameters.height, parameters.width)
    )
    if hires.upscaler == "latent":
        latents = diffuser(**first | {"output_type": "latent"}).images
        if hasattr(diffuser, "_unpack_latents"):
            latents = diffuser._unpack_latents(latents, parameters.height, parameters.width, factor)
        size = (height // factor, width // factor)
        larger = torch.nn.functional.interpolate(latents, size=size, mode="bilinear")
    else:
        picture = diffuser(**first | {"output_type": "pil"}).images[0]
        larger = picture.resize((width, height), Image.Resampling.LANCZOS)
    rest = {name: value for name, value in first.items() if name not in ("height", "width")}
    if sized:  # its size is not that of the image unless one says so
        rest |= {"height": height, "width": width}
    return {
        **rest,
        "image": larger,
        "strength": hires.strength,
        "num_inference_steps": hires.num_inference_steps,
    }


def pipeline(folder: Path, task: type[TextToImage]) -> Any:
    """diffusers' pipeline of this folder for this task, with its own sampler, as just loaded.

    It is shared, so leave the rest of it as it was.
    """
    loaded, name, config = _loaded(folder, task.task)
    loaded.scheduler = make_scheduler(DEFAULT, {**config, "_class_name": name})
    return loaded


def _with_sampler(folder: Path, task: type[TextToImage], parameters: TextToImage) -> Any:
    loaded, name, config = _loaded(folder, task.task)
    sampler = parameters.scheduler or DEFAULT
    loaded.scheduler = make_scheduler(sampler, {**config, "_class_name": name})
    hidden = {key: config[key] for key in SHIFT if key in config}
    loaded.scheduler.register_to_config(**hidden)  # as `from_config` keeps them
    if not hasattr(loaded.scheduler, "scale_noise"):  # pipelines for flow matching look for it
        add_noise = loaded.scheduler.add_noise
        loaded.scheduler.scale_noise = lambda sample, step, noise: add_noise(sample, noise, step)
    return loaded


def _family(folder: Path) -> str:
    """What the names of diffusers' pipelines for this folder begin with."""
    name: str = json.loads((folder / "model_index.json").read_text())["_class_name"]
    named = name.removesuffix("Pipeline")
    for suffix in ("Img2Img", "Inpaint"):
        named = named.removesuffix(suffix)
    return "StableDiffusion" if named == "LatentConsistencyModel" else named


@cache
def _loaded(folder: Path, task: str) -> tuple[Any, str, dict[str, Any]]:
    """With the class and the config of its own sampler."""
    import diffusers

    family = _family(folder)
    suffix = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint"}[task]
    index = json.loads((folder / "model_index.json").read_text())
    absent = {name: None for name, value in index.items() if value == [None, None]}
    loaded = getattr(diffusers, f"{family}{suffix}Pipeline").from_pretrained(
        folder, dtype=torch.float32, **absent
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded, type(loaded.scheduler).__name__, dict(loaded.scheduler.config)
