"""diffusers' own pipelines, called as the contract says: what the engine must equal."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.samplers import make_scheduler


def draw(
    folder: Path,
    parameters: TextToImage,
    image: Image.Image | None = None,
    mask: Image.Image | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8 of one image, by diffusers' pipeline for this task."""
    pipeline = _pipeline(folder, type(parameters))
    pipeline.scheduler = make_scheduler(
        parameters.scheduler or "default", dict(_config(folder, type(parameters)))
    )
    call: dict[str, Any] = {
        "prompt": parameters.prompt,
        "negative_prompt": parameters.negative_prompt or None,
        "num_inference_steps": parameters.num_inference_steps,
        "guidance_scale": parameters.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(parameters.seed or 0),
        "output_type": "np",
    }
    if image is not None:
        assert isinstance(parameters, ImageToImage)
        call |= {"image": image, "strength": parameters.strength}
    if mask is not None:
        call["mask_image"] = mask
    if not isinstance(parameters, ImageToImage) or mask is not None:
        call |= {"height": parameters.height, "width": parameters.width}
    if parameters.guidance_rescale:
        call["guidance_rescale"] = parameters.guidance_rescale
    pixels = pipeline(**call).images[0]
    return (pixels * 255).round().astype(np.uint8)


@cache
def _pipeline(folder: Path, task: type) -> Any:
    import diffusers

    family = "StableDiffusionXL" if (folder / "text_encoder_2").exists() else "StableDiffusion"
    suffix = {TextToImage: "", ImageToImage: "Img2Img", Inpaint: "Inpaint"}[task]
    pipeline = getattr(diffusers, f"{family}{suffix}Pipeline").from_pretrained(
        folder, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def _config(folder: Path, task: type) -> tuple[tuple[str, Any], ...]:
    config = dict(_pipeline(folder, task).scheduler.config)
    config["_class_name"] = type(_pipeline(folder, task).scheduler).__name__
    return tuple(config.items())
