"""Weights are kept in 8 bits here, by torchao (https://github.com/pytorch/ao), if settings say so.

Weight-only: each linear layer's weights are kept in 8 bits with a scale per row, and are brought
back to the model's number format within each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runnables.checkpoints import mapped
from runnables.errors import ConfigurationError

#: what SD_QUANTIZE calls it -> the name of torchao's configuration
CONFIGS = {"int8": "Int8WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}


def quantize(module: nn.Module, kind: str) -> None:
    """Quantise a module's linear layers in place, on the device that it is on.

    The memory of a layer's unquantised weights is given back before the next layer.

    Raises:
        ConfigurationError: torchao is not installed.
    """
    try:
        from torchao import quantization
    except ImportError as error:
        raise ConfigurationError(
            f"SD_QUANTIZE needs torchao: {error}", loc=("SD_QUANTIZE",)
        ) from error
    config = getattr(quantization, CONFIGS[kind])(set_inductor_config=False)
    files = mapped.files()
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            before = layer.weight
            quantization.quantize_(layer, config)
            mapped.give_back(before, files)


def gguf_shapes(path: Path) -> dict[str, list[int]]:
    """Return name -> shape of the tensors of a GGUF file; what foreign files raise is passed on."""
    from gguf import GGUFReader

    return {one.name: one.shape.tolist()[::-1] for one in GGUFReader(path).tensors}


def check(kinds: Mapping[str, str], components: Mapping[str, Any]) -> None:
    """Check that a model has the components that are to be quantised.

    Raises:
        ConfigurationError: it has one of them not, or not as weights of linear layers.
    """
    fit = [name for name, part in components.items() if has_linear_layers(name, part)]
    for name in kinds:
        if name not in fit:
            raise ConfigurationError(
                f"SD_QUANTIZE names {name}; this model has {', '.join(fit)}", loc=("SD_QUANTIZE",)
            )


def has_linear_layers(name: str, part: Any) -> bool:
    """Return whether quantising this component is of use: a VAE has convolutions instead."""
    return isinstance(part, nn.Module) and name not in ("vae", "safety_checker")


def bytes_of(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes; a quantised one is made of others."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
    return sum(bytes_of(part) for part in parts if isinstance(part, torch.Tensor))
