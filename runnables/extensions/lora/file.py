"""LoRA files in the naming of kohya, diffusers and peft are read by diffusers' own converters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from runnables.checkpoints.families import FAMILIES
from runnables.errors import InvalidInput
from runnables.extensions.lora import mmdit
from runnables.extensions.lora.layers import Factors, Lora

if TYPE_CHECKING:
    from runnables.families.base import Family

Weights = dict[str, Tensor]
PEFT = "base_model.model."  # what names begin with in files that peft saved


def read(name: str, path: Path, family: Family) -> Lora:
    """Return a LoRA made for this model.

    Raises:
        InvalidInput: the file is no LoRA, of an unknown kind, or for another model.
    """
    try:
        return _read(name, path, family)
    except InvalidInput:
        raise
    except Exception as error:  # whatever foreign files make the libraries raise
        raise _refusal(name, f"cannot be read: {error}") from error


def _read(name: str, path: Path, family: Family) -> Lora:
    with safe_open(path, framework="pt") as file:
        weights = {key: _checked(key, file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        metadata = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    weights = _named_as_in_diffusers(weights, family)
    modules = {family.denoiser_name: family.denoiser, **_text_encoders(family)}
    parts = {}
    for component, module in modules.items():
        own = {
            key.removeprefix(f"{component}."): value
            for key, value in weights.items()
            if key.startswith(f"{component}.")
        }
        alphas = {
            key.removeprefix(f"{component}."): value
            for key, value in metadata.items()
            if key.startswith(f"{component}.")
        }
        parts[component] = _factors(name, _as_peft(own, component), alphas, module)
    if not any(parts.values()):
        raise _refusal(name, "is for another model")
    return Lora(name, {part: _moved(factors, family) for part, factors in parts.items()})


def _checked(key: str, weight: Tensor) -> Tensor:
    """Return a weight, in 32 bits where it has 8. Raise ValueError where it cannot be one."""
    if weight.dtype.itemsize == 1:  # PyTorch multiplies none of these on the CPU
        weight = weight.float()
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"{key} has values that are not numbers")
    fits = weight.numel() == 1 if key.endswith(".alpha") else weight.ndim > 1 and weight.numel() > 0
    if not fits:
        raise ValueError(f"{key} has the shape {tuple(weight.shape)}")
    return weight


def _text_encoders(family: Family) -> dict[str, nn.Module]:
    parts = family.checkpoint.components.items()
    return {name: part for name, part in parts if name.startswith("text_encoder")}


def _named_as_in_diffusers(weights: Weights, family: Family) -> Weights:
    """Change kohya's names to diffusers', and multiply its alphas into the `up` weights."""
    from diffusers import loaders

    loader = getattr(loaders, FAMILIES[family.checkpoint.family].lora_loader)
    if any("dora_scale" in key for key in weights):
        raise ValueError("DoRA is not supported")
    weights = {_without_peft(key, family): value for key, value in weights.items()}
    if any(key.startswith(mmdit.MARK) for key in weights):
        encoders = _text_encoders(family).items()
        layers = {name: [path for path, _ in one.named_modules()] for name, one in encoders}
        blocks = len(getattr(family.denoiser, "transformer_blocks", ()))
        return mmdit.from_kohya(weights, blocks, layers)
    if family.denoiser_name != "unet":  # diffusers has no other names for these
        return dict(loader.lora_state_dict(_with_alphas(weights)))
    converted, alphas = loader.lora_state_dict(weights, unet_config=family.denoiser.config)
    for key, alpha in (alphas or {}).items():
        stem = key.removesuffix(".alpha")
        down = stem if stem in converted else f"{stem}.lora.down.weight"
        up = down.replace(".down.", ".up.")
        converted[up] = converted[up] * (float(alpha) / converted[down].shape[0])
    return dict(converted)


def _with_alphas(weights: Weights) -> Weights:
    """Multiply alpha / rank into the `lora_B` weights: diffusers returns some apart."""
    folded = dict(weights)
    for key in [key for key in weights if key.endswith(".alpha")]:
        down, up = (f"{key.removesuffix('.alpha')}.lora_{part}.weight" for part in "AB")
        if down in weights and up in weights:
            folded[up] = weights[up] * (float(folded.pop(key)) / len(weights[down]))
    return folded


def _without_peft(key: str, family: Family) -> str:
    """Return the key of peft's own file with the component that its layer belongs to."""
    if not key.startswith(PEFT):
        return key
    path = key.removeprefix(PEFT)
    layer = path.partition(".lora_")[0]
    for component, module in {
        family.denoiser_name: family.denoiser,
        **_text_encoders(family),
    }.items():
        paths = (name.removeprefix("text_model.") for name, _ in module.named_modules())
        if layer.removeprefix("text_model.") in paths:
            return f"{component}.{path}"
    return f"{family.denoiser_name}.{path}"


def _as_peft(weights: Weights, component: str) -> Weights:
    """Return the names as `layer.lora_A.weight` (down) and `layer.lora_B.weight` (up)."""
    from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
    from diffusers.utils.state_dict_utils import StateDictType

    if component.startswith("text_encoder"):
        for names in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
            weights = convert_state_dict_to_peft(weights, names)  # others stay as they are
        return {key.removeprefix("text_model."): value for key, value in weights.items()}
    if not any("lora_A" in key for key in weights):
        weights = convert_unet_state_dict_to_peft(weights)
    return {key.replace(".processor.", "."): value for key, value in weights.items()}


def _factors(
    name: str, weights: Weights, metadata: Mapping[str, Any], module: nn.Module
) -> dict[str, Factors]:
    layers = {path.removeprefix("text_model."): path for path, _ in module.named_modules()}
    factors = {}
    for key in [key for key in weights if key.endswith(".lora_A.weight")]:
        path = key.removesuffix(".lora_A.weight")
        down, up = weights.pop(key), weights.pop(f"{path}.lora_B.weight", None)
        if path not in layers or up is None:
            raise _refusal(name, f"is for another model: {path} is not in this one")
        layer = module.get_submodule(layers[path])
        scaled = up * _scale(path, len(down), metadata)
        factors[layers[path]] = _fitted(name, path, down, scaled, layer)
    if weights:
        raise _refusal(name, f"has weights of an unknown kind: {next(iter(weights))}")
    return factors


def _scale(path: str, rank: int, metadata: Mapping[str, Any]) -> float:
    """Return peft's alpha / rank, where the file has it; 1 elsewhere."""
    alpha = metadata.get("lora_alpha", rank)
    for pattern, own in metadata.get("alpha_pattern", {}).items():
        rule = re.compile(rf"(.*\.)?({pattern})$")  # as peft's get_pattern_key
        if rule.match(path) or rule.match(f"text_model.{path}"):
            alpha = own
            break
    return float(alpha) / (math.sqrt(rank) if metadata.get("use_rslora") else rank)


def _fitted(name: str, path: str, down: Tensor, up: Tensor, layer: nn.Module) -> Factors:
    """Check factors against the layer.

    Their shapes are (rank, in) and (out, rank), with kernels for convolutions.
    """
    if isinstance(layer, nn.Conv2d):
        widths = (layer.in_channels, layer.out_channels)
        down, up = (w if w.ndim == 4 else w[..., None, None] for w in (down, up))
        kernel_fits = tuple(down.shape[2:]) == tuple(layer.kernel_size)
    elif isinstance(layer, nn.Linear):
        widths, kernel_fits = (layer.in_features, layer.out_features), True
        down, up = down.flatten(1), up.flatten(1)
    else:
        raise _refusal(name, f"adapts {path}, a {type(layer).__name__}")
    if (down.shape[1], up.shape[0]) != widths or down.shape[0] != up.shape[1] or not kernel_fits:
        raise _refusal(name, f"is for another model: {path} has another size there")
    return Factors(down, up)


def _moved(factors: Mapping[str, Factors], family: Family) -> dict[str, Factors]:
    def move(weight: Tensor) -> Tensor:
        return weight.to(family.device, family.dtype).contiguous()

    with torch.inference_mode():
        return {path: Factors(move(f.down), move(f.up)) for path, f in factors.items()}


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the LoRA {name!r} {why}", loc=("loras",))
