"""ControlNets are loaded from diffusers folders with config.json and safetensors."""

from __future__ import annotations

import json
import logging
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runnables.checkpoints.components import load_module
from runnables.checkpoints.families import FAMILIES
from runnables.errors import GenerationFailed, InvalidInput
from runnables.extensions.controlnet.base import ControlNet
from runnables.families.base import Family

logger = logging.getLogger(__name__)


def load(name: str, folder: Path, family: Family, adopt: Callable[[nn.Module], None]) -> ControlNet:
    """Return a ControlNet for this model.

    Args:
        adopt: brings a module to the accelerator.

    Raises:
        InvalidInput: the folder is broken, holds something else, or is for another model.
        GenerationFailed: the accelerator's memory is full; who waits for room would wait for ever.
    """
    import diffusers

    own: type[ControlNet] = pkgutil.resolve_name(FAMILIES[family.traits.family].controlnet)
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
    return own(name, model, family)


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the ControlNet {name!r} {why}", loc=("controlnets",))
