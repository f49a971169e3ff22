"""Single-file checkpoints: one .safetensors with UNet, VAE and text encoders in the original names.

Such a file has weights only. Configurations and tokenizers come from a diffusers folder of the same
architecture; in this order: the one that is named (SD_CHECKPOINT_CONFIG), one beside the file with
the file's name, the catalog's model of that kind where it is imported, and else the Hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from runnables.checkpoints import catalog, layout
from runnables.checkpoints.checkpoint import Checkpoint, family_of, profile_of
from runnables.checkpoints.components import refusal
from runnables.samplers.scheduler import mended

#: diffusers' name of a kind of checkpoint -> the pipeline that reads it, the catalog's model of it
KINDS = {
    "v1": ("StableDiffusionPipeline", "sd-1.5"),
    "inpainting": ("StableDiffusionInpaintPipeline", "sd-1.5-inpaint"),
    "v2": ("StableDiffusionPipeline", "sd-2.1"),
    "inpainting_v2": ("StableDiffusionInpaintPipeline", "sd-2-inpaint"),
    "xl_base": ("StableDiffusionXLPipeline", "sdxl"),
    "xl_inpaint": ("StableDiffusionXLInpaintPipeline", "sdxl-inpaint"),
    "xl_refiner": ("StableDiffusionXLImg2ImgPipeline", "sdxl-refiner"),
}
UNET_PREFIX = "model.diffusion_model."


def load_file(path: Path, dtype: torch.dtype, config: str | None) -> Checkpoint:
    """Load a single-file checkpoint.

    Args:
        config: a diffusers folder of the same architecture, or None.

    Raises:
        ConfigurationError: the file is damaged or of an unknown kind, or no configuration found.
    """
    kind = _kind(path)
    if kind not in KINDS:
        raise refusal(f"{path} is a checkpoint of kind {kind}; supported are {', '.join(KINDS)}")
    class_name, known = KINDS[kind]
    folder = _folder(path, config, known)
    source = str(folder) if folder else catalog.CATALOG[known].repository
    import diffusers

    try:
        pipeline = getattr(diffusers, class_name).from_single_file(
            str(path), dtype=dtype, config=source, local_files_only=folder is not None
        )
    except Exception as error:  # whatever a foreign file makes the converter raise
        raise refusal(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint with the configuration of "
            f"{source}: {error}. Without the Hub, import {known} first, or name a diffusers folder "
            "of the same architecture in SD_CHECKPOINT_CONFIG"
        ) from error
    return _checkpoint(path, pipeline)


def _kind(path: Path) -> str:
    """What diffusers takes the file for; read from its header, not its weights."""
    if path.suffix != ".safetensors":
        raise refusal(
            f"{path} is not a .safetensors file; pickled checkpoints (.ckpt, .pt) can run code "
            "when they are loaded, and are not taken"
        )
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import safe_open

    try:
        layout.check_complete(path)
        with safe_open(path, framework="pt") as file:
            shapes = {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118 - the handle is no mapping
            }
        kind: str = infer_diffusers_model_type(shapes)
    except Exception as error:
        raise refusal(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint: {error}"
        ) from error
    if not any(name.startswith(UNET_PREFIX) for name in shapes):  # "v1" is its answer to anything
        raise refusal(f"{path} cannot be loaded as a Stable Diffusion checkpoint: it has no UNet")
    return kind


def _folder(path: Path, config: str | None, known: str) -> Path | None:
    if config:
        return Path(config)
    beside = path.with_suffix("")
    return beside if (beside / layout.INDEX).is_file() else catalog.folder_of(known)


def _checkpoint(path: Path, pipeline: Any) -> Checkpoint:
    def parts(*names: str) -> tuple[Any, ...]:
        return tuple(part for n in names if (part := getattr(pipeline, n, None)) is not None)

    for module in (pipeline.unet, pipeline.vae, *parts("text_encoder", "text_encoder_2")):
        module.eval().requires_grad_(False)
    index = {**dict(pipeline.config), "_class_name": type(pipeline).__name__}
    scheduler = pipeline.scheduler
    named = {**dict(scheduler.config), "_class_name": type(scheduler).__name__}
    scheduler_config = mended(named, index["_class_name"])
    own = path.with_suffix(".profile.json")
    family = family_of(index)
    return Checkpoint(
        name=path.stem,
        family=family,
        tokenizers=parts("tokenizer", "tokenizer_2"),
        text_encoders=parts("text_encoder", "text_encoder_2"),
        unet=pipeline.unet,
        vae=pipeline.vae,
        scheduler_config=scheduler_config,
        safety_checker=getattr(pipeline, "safety_checker", None),
        feature_extractor=getattr(pipeline, "feature_extractor", None),
        profile=profile_of(
            family, scheduler_config, json.loads(own.read_text()) if own.is_file() else {}
        ),
        config=index,
    )
