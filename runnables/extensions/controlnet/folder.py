"""Loads ControlNets: diffusers folders with config.json and safetensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from runnables.checkpoints.components import load_module
from runnables.errors import InvalidInput, OverCapacity
from runnables.extensions.controlnet.residuals import ControlNet

if TYPE_CHECKING:
    from runnables.families.base import Family

logger = logging.getLogger(__name__)

#: what a ControlNet and the UNet it acts on have in common
SHARED = (
    "cross_attention_dim",
    "block_out_channels",
    "layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "class_embed_type",
)


def load(name: str, folder: Path, family: Family, adopt: Callable[[nn.Module], None]) -> ControlNet:
    """A ControlNet for this model.

    Args:
        adopt: brings a module to the accelerator.

    Raises:
        InvalidInput: the folder is broken, holds something else, or is for another model.
        OverCapacity: the accelerator's memory is full.
    """
    from diffusers import ControlNetModel

    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _refusal(name, "has a config.json that cannot be read") from error
    if kind != "ControlNetModel":
        raise _refusal(name, f"is a {kind}; supported are ControlNetModel")
    try:
        model: Any = load_module(ControlNetModel, folder, family.dtype)
    except Exception as error:  # whatever foreign files make the libraries raise
        logger.warning("the ControlNet %s cannot be loaded: %s", folder, error)
        raise _refusal(name, "is broken or incomplete: the server's log says how") from error
    if different := _difference(model.config, family):
        raise _refusal(name, f"is for another model: its {different}")
    nbytes = sum(weights.nbytes for weights in model.parameters())
    try:
        adopt(model)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise OverCapacity(f"no memory is left for the ControlNet {name!r}") from error
    return ControlNet(name, model, nbytes)


def _difference(config: Mapping[str, Any], family: Family) -> str | None:
    """Where it does not fit the model, in words."""
    unet = family.denoiser.config
    wanted = {name: unet[name] for name in SHARED}
    wanted |= {"in_channels": family.traits.latent_channels, "conditioning_channels": 3}
    for name, value in wanted.items():
        if _plain(config[name]) != _plain(value):
            return f"{name} is {config[name]}, not {value}"
    shrinks = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    if shrinks != family.traits.scale_factor:
        return f"images are shrunk {shrinks} times, not {family.traits.scale_factor}"
    return None


def _plain(value: Any) -> Any:
    """Lists in JSON are tuples in code."""
    return list(value) if isinstance(value, tuple | list) else value


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the ControlNet {name!r} {why}", loc=("controlnets",))
