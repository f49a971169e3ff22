"""A sampler's table has the coefficients of a linear recursion; one product applies them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SamplerTable:
    """A table is one sampler at one number of steps, for K denoiser calls.

    The state of a row is `depth` slots shaped like its latents; slot 0 is the current sample x.
    Call k passes the denoiser `input_scale[k] * x` at `timesteps[k]`; with its (guided) output m
    and unit Gaussian noise n the state becomes `coefficients[k] @ [state, m, n]`.

    Attributes:
        timesteps: (K,) float32.
        input_scale: (K,) float32.
        coefficients: (K, depth, depth + 2) float32.
        draws_noise: whether the scheduler draws noise at call k (even where its weight is 0), so
            that the generator is drawn from in diffusers' order.
        start: weights of image latents and of noise in the first sample.
        renoise: (K, 2) float32, weights of image latents and of noise that inpainting puts outside
            the mask after call k.
    """

    timesteps: Tensor
    input_scale: Tensor
    coefficients: Tensor
    draws_noise: tuple[bool, ...]
    start: tuple[float, float]
    renoise: Tensor

    def __post_init__(self) -> None:
        _ = self.levels  # while the table is made, because no step reads a tensor

    def __len__(self) -> int:
        return len(self.draws_noise)

    @property
    def depth(self) -> int:
        return int(self.coefficients.shape[1])

    @cached_property
    def levels(self) -> tuple[tuple[float, float], ...]:
        """Return `renoise` as numbers."""
        return tuple((of_image, of_noise) for of_image, of_noise in self.renoise.tolist())


def pad_depth(table: SamplerTable, depth: int) -> SamplerTable:
    """Return the same sampler with a state of `depth` slots; the further ones stay zero."""
    have = table.depth
    if depth == have:
        return table
    padded = torch.zeros(len(table), depth, depth + 2, dtype=torch.float32)
    padded[:, :have, :have] = table.coefficients[:, :, :have]
    padded[:, :have, depth:] = table.coefficients[:, :, have:]
    return replace(table, coefficients=padded)


def advance(buffer: Tensor, coefficients: Tensor) -> Tensor:
    """Return every row's next state, whatever its sampler, in one batched product.

    Args:
        buffer: (R, depth + 2, C, h, w): state slots, then model output, then noise.
        coefficients: (R, depth, depth + 2).

    Returns:
        (R, depth, C, h, w).
    """
    flat = torch.bmm(coefficients, buffer.flatten(2))
    return flat.view(len(flat), -1, *buffer.shape[2:])
