"""ControlNets are loaded from diffusers folders with config.json and safetensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from runnables.checkpoints.components import load_module
from runnables.errors import GenerationFailed, InvalidInput
from runnables.extensions.controlnet import flux, stable_diffusion_3, unet
from runnables.extensions.controlnet.base import ControlNet
from runnables.families.base import Family

logger = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A kind describes the ControlNets of one kind of denoiser.

    Attributes:
        class_name: diffusers' class.
        code: ours around it, made with (name, model, family).
        difference: says where a config does not fit a family's model.
    """

    class_name: str
    code: Callable[[str, Any, Family], ControlNet]
    difference: Callable[[Mapping[str, Any], Family], str | None]


UNET = Kind("ControlNetModel", unet.UNetControlNet, unet.difference)
#: by the family's name; the others have UNets
KINDS = {
    "stable-diffusion-3": Kind(
        "SD3ControlNetModel",
        stable_diffusion_3.StableDiffusion3ControlNet,
        stable_diffusion_3.difference,
    ),
    "flux": Kind("FluxControlNetModel", flux.FluxControlNet, flux.difference),
}


def load(name: str, folder: Path, family: Family, adopt: Callable[[nn.Module], None]) -> ControlNet:
    """Return a ControlNet for this model.

    Args:
        adopt: brings a module to the accelerator.

    Raises:
        InvalidInput: the folder is broken, holds something else, or is for another model.
        GenerationFailed: the accelerator's memory is full; who waits for room would wait for ever.
    """
    import diffusers

    own = KINDS.get(family.traits.family, UNET)
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _refusal(name, "has a config.json that cannot be read") from error
    if kind != own.class_name:
        raise _refusal(name, f"is a {kind}; this model takes {own.class_name}")
    try:
        model: Any = load_module(getattr(diffusers, own.class_name), folder, family.dtype)
    except Exception as error:  # whatever foreign files make the libraries raise
        logger.warning("the ControlNet %s cannot be loaded: %s", folder, error)
        raise _refusal(name, "is broken or incomplete: the server's log says how") from error
    if different := own.difference(model.config, family):
        raise _refusal(name, f"is for another model: its {different}")
    try:
        adopt(model)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise GenerationFailed(f"no memory is left for the ControlNet {name!r}") from error
    return own.code(name, model, family)


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the ControlNet {name!r} {why}", loc=("controlnets",))
