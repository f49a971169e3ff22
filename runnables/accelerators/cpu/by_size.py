"""These operators look at more than one position of a row, so they run size by size.

The positions of all rows lie in one list, (positions, channels): those of one size after those of
another, and of each size row by row. `counts` (S,) are the rows of each size, and `sizes` height
and width of each, one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from runnables.accelerators.cpu.norms import normed_images
from runnables.accelerators.cpu.scripted import scripted

#: groups, weight, bias and eps of a group norm; no groups: there is none
Norm = tuple[int, Tensor | None, Tensor | None, float]


def of(norm: nn.GroupNorm | None) -> Norm:
    """Return what functions take of a group norm."""
    return (norm.num_groups, norm.weight, norm.bias, norm.eps) if norm else (0, None, None, 0.0)


@scripted
def group_norm(
    input: Tensor,
    counts: Tensor,
    sizes: list[int],
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Return every row normed by its own statistics."""
    rows: list[int] = counts.tolist()
    made: list[Tensor] = []
    position = 0
    for index, count in enumerate(rows):
        height, width = sizes[2 * index], sizes[2 * index + 1]
        end = position + count * height * width
        if count:
            images = input[position:end].view(count, height, width, -1).permute(0, 3, 1, 2)
            normed = normed_images(images, groups, weight, bias, eps)
            made.append(normed.permute(0, 2, 3, 1).reshape(end - position, -1))
        position = end
    return made[0] if len(made) == 1 else torch.cat(made)


@scripted
def self_attention(
    query: Tensor, key: Tensor, value: Tensor, counts: Tensor, sizes: list[int], heads: int
) -> Tensor:
    """Return the attention of every row's positions to each other, (positions, channels)."""
    rows: list[int] = counts.tolist()
    made: list[Tensor] = []
    position = 0
    for index, count in enumerate(rows):
        end = position + count * sizes[2 * index] * sizes[2 * index + 1]
        if count:
            shape = [count, -1, heads, query.size(1) // heads]
            found = functional.scaled_dot_product_attention(
                query[position:end].view(shape).transpose(1, 2),
                key[position:end].view(shape).transpose(1, 2),
                value[position:end].view(shape).transpose(1, 2),
            )
            made.append(found.transpose(1, 2).reshape(end - position, -1))
        position = end
    return made[0] if len(made) == 1 else torch.cat(made)


@scripted
def text_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    runs: Tensor,
    sizes: list[int],
    heads: int,
    bias: Tensor | None,
) -> Tensor:
    """Return the attention of every row's positions to its text, (positions, channels).

    Args:
        key, value: (texts, tokens, channels)
        runs: (N, 4), in the order of the list: index of the size, rows of each text, the first
            text, and how many texts follow one another from there.
        bias: (texts, 1, tokens), added to the scores.
    """
    every: list[list[int]] = runs.tolist()
    made: list[Tensor] = []
    position = 0
    for index, rows, first, texts in every:
        last = first + texts
        end = position + texts * rows * sizes[2 * index] * sizes[2 * index + 1]
        shape = [texts, -1, heads, query.size(1) // heads]
        found = functional.scaled_dot_product_attention(
            query[position:end].view(shape).transpose(1, 2),
            key[first:last].view(shape).transpose(1, 2),
            value[first:last].view(shape).transpose(1, 2),
            attn_mask=None if bias is None else bias[first:last, None],
        )
        made.append(found.transpose(1, 2).reshape(end - position, -1))
        position = end
    return made[0] if len(made) == 1 else torch.cat(made)


@scripted
def doubled(input: Tensor, counts: Tensor, sizes: list[int]) -> Tensor:
    """Return every position four times, as a square of twice its sides."""
    rows: list[int] = counts.tolist()
    channels = input.size(1)
    output = input.new_empty([4 * input.size(0), channels])
    position = 0
    for index, count in enumerate(rows):
        height, width = sizes[2 * index], sizes[2 * index + 1]
        end = position + count * height * width
        into = output[4 * position : 4 * end].view(count, height, 2, width, 2, channels)
        into.copy_(input[position:end].view(count, height, 1, width, 1, channels))
        position = end
    return output
