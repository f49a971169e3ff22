"""LoRAs (arXiv:2106.09685) act row by row: rows with different ones share a denoiser call.

The model's weights stay as they are. While a call runs, hooks on the adapted layers add each LoRA's
low-rank product to the rows that requested it, and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from runnables.extensions.hooks import Hook


@dataclass(frozen=True, eq=False)
class Factors:
    """The product of these two matrices, or convolutions, is added to a layer; `up` has any scale.

    Attributes:
        down: (rank, in, ...), up: (out, rank, ...).
    """

    down: Tensor
    up: Tensor

    def __call__(self, layer: nn.Module, rows: Tensor) -> Tensor:
        """Return the product's output for rows of the layer's input."""
        if not isinstance(layer, nn.Conv2d):
            return functional.linear(functional.linear(rows, self.down), self.up)
        narrow = functional.conv2d(rows, self.down, None, layer.stride, layer.padding)
        return functional.conv2d(narrow, self.up)


@dataclass(frozen=True, eq=False)
class Lora:
    """This is a LoRA for one model, on its device and in its dtype.

    Attributes:
        parts: component ("unet", "text_encoder", "text_encoder_2") -> layer's path -> factors.
        number: no other LoRA has it, also when the same file is loaded again.
    """

    name: str
    parts: Mapping[str, Mapping[str, Factors]]
    number: int = field(default_factory=count().__next__)

    @property
    def nbytes(self) -> int:
        every = (factors for part in self.parts.values() for factors in part.values())
        return sum(factors.down.nbytes + factors.up.nbytes for factors in every)


#: the LoRAs of one request with their weights
LoraSet = tuple[tuple[Lora, float], ...]


@dataclass(frozen=True, eq=False)
class Use:
    """A LoRA acts on these rows of a call: `rows` (n,) indices, or None for all; `weights` (n,)."""

    lora: Lora
    rows: Tensor | None
    weights: Tensor


def uses(sets: Sequence[LoraSet], device: torch.device) -> list[Use]:
    """Return the rows of every LoRA of a call, from the LoRAs of every row."""
    rows: dict[Lora, list[tuple[int, float]]] = {}
    for index, loras in enumerate(sets):
        for lora, weight in loras:
            rows.setdefault(lora, []).append((index, weight))
    return [
        Use(
            lora,
            torch.tensor([index for index, _ in pairs], device=device),
            _weights([weight for _, weight in pairs], device),
        )
        for lora, pairs in rows.items()
    ]


def everywhere(loras: LoraSet, device: torch.device) -> list[Use]:
    """Return the use of these LoRAs on all rows of calls, however many those have."""
    return [Use(lora, None, _weights([weight], device)) for lora, weight in loras]


def _weights(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def adapting(module: nn.Module, component: str, active: Sequence[Use]) -> list[Hook]:
    """Return the hooks that run each row of calls of `module` with its LoRAs.

    A model has thousands of layers: what serves many calls looks them up once.
    """
    work: dict[str, list[tuple[Use, Factors]]] = {}
    for use in active:
        for path, factors in use.lora.parts.get(component, {}).items():
            work.setdefault(path, []).append((use, factors))
    layers = dict(module.named_modules()) if work else {}
    hooks: list[Hook] = []
    for path, parts in work.items():
        hooks.append((layers[path], partial(_add, parts)))
    return hooks


def _add(
    parts: Sequence[tuple[Use, Factors]],
    layer: nn.Module,
    inputs: tuple[Tensor, ...],
    _named: dict[str, Any],
    output: Tensor,
) -> None:
    """Add the products to the layer's output, in place, as a forward hook."""
    for use, factors in parts:
        product = factors(layer, inputs[0] if use.rows is None else inputs[0][use.rows])
        weighted = (product * use.weights.view(-1, *[1] * (product.ndim - 1))).to(output.dtype)
        if use.rows is None:
            output.add_(weighted)
        else:
            output.index_add_(0, use.rows, weighted)
