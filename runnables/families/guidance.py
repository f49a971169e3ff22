"""Classifier-free guidance is applied row by row, by pure functions on float32 tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def guide(
    conditional: Tensor, unconditional: Tensor, scale: Tensor, rescale: Tensor | None = None
) -> Tensor:
    """Apply classifier-free guidance (arXiv:2207.12598, eq. 6), rescaled (arXiv:2305.08891, 3.4).

    Args:
        conditional: (R, C, h, w) model output with the prompt.
        unconditional: (R, C, h, w) model output with the negative prompt.
        scale: (R,) guidance scale of each row.
        rescale: (R,) in 0..1; 0 leaves the row as it is, None all rows.

    Returns:
        (R, C, h, w) guided output.
    """
    guided = unconditional + _column(scale) * (conditional - unconditional)
    if rescale is None:
        return guided
    ratio = _deviation(conditional) / _deviation(guided)
    share = _column(rescale)
    return share * (guided * ratio) + (1 - share) * guided


def scale_embedding(scale: float, dimension: int) -> Tensor:
    """Return an embedding (dimension,) of scale - 1, for distilled models (arXiv:2310.04378).

    The sinusoids are those of diffusers' `get_guidance_scale_embedding`.
    """
    half = dimension // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    )
    angles = (scale - 1) * 1000.0 * frequencies
    embedding = torch.cat([angles.sin(), angles.cos()])
    return torch.nn.functional.pad(embedding, (0, dimension % 2))


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _deviation(output: Tensor) -> Tensor:
    return output.std(dim=(1, 2, 3), keepdim=True)
