"""A UNet call runs here on one list of the positions of all rows, whatever their sizes.

This is `UNet2DConditionModel.forward` of diffusers 0.42 with the model's own layers, for the blocks
that Stable Diffusion 1, 2 and XL have. A layer that takes each position for itself is one product
of matrices for all sizes, and what looks at a position's neighbours runs size by size (`by_size`).
So rows of different sizes share a call at no price. Rows with the same text share its keys and
values, too. The numbers differ from diffusers' in the last digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from runnables.accelerators.cpu import by_size
from runnables.accelerators.cpu.packed import PackedConv2d, PointwiseConv2d
from runnables.families import canvas
from runnables.families.base import Conditioning, Size

MOST = 4  # sizes that a trace is prepared for at least


class Layout:
    """A layout says where the rows of a batch lie in the list; it serves all calls of the batch.

    Attributes:
        sizes: (height, width) of latents, in the order of the list; of some there may be no row.
        inputs: what a call takes beside positions and timesteps, in this order.
    """

    def __init__(self, rows: Sequence[Size], sizes: Sequence[Size], given: Conditioning) -> None:
        self.sizes = sizes
        texts = given.texts or tuple(range(len(rows)))
        shared = Counter(zip(rows, texts, strict=True))  # rows of one size with the same text
        order = sorted(
            range(len(rows)),
            key=lambda row: (sizes.index(rows[row]), -shared[rows[row], texts[row]], texts[row]),
        )
        firsts = list(dict.fromkeys(texts[row] for row in order))
        runs: list[list[int]] = []
        for size, text in dict.fromkeys((rows[row], texts[row]) for row in order):
            run = [sizes.index(size), shared[size, text], firsts.index(text), 1]
            if runs and runs[-1][:2] == run[:2] and sum(runs[-1][2:]) == run[2]:
                runs[-1][3] += 1
            else:
                runs.append(run)
        self._order = torch.tensor(order)
        counts = Counter(rows)
        self._counts = [counts[size] for size in sizes]
        self._rows = self._order.split(self._counts)
        mask = None if given.mask is None else given.mask[firsts]
        conditions = (given.pooled, given.time_ids, given.guidance)
        self.inputs: list[Tensor | None] = [
            torch.tensor(self._counts),
            torch.tensor(runs),
            given.hidden_states[firsts],
            mask,
            *(None if one is None else one[self._order] for one in conditions),
        ]

    def listed(self, sample: Tensor, timesteps: Tensor) -> list[Tensor]:
        """Return the (positions, C) of a (U, C, h, w), and the timesteps in their order."""
        parts = [
            sample[rows, :, :height, :width].permute(0, 2, 3, 1).reshape(-1, sample.shape[1])
            for rows, (height, width) in zip(self._rows, self.sizes, strict=True)
        ]
        return [torch.cat(parts), timesteps[self._order]]

    def placed(self, positions: Tensor, sample: Tensor) -> Tensor:
        """Return the positions as a (U, C, h, w) of `sample`'s sides; what is no row is zero."""
        channels = positions.shape[1]
        whole = positions.new_zeros(len(sample), channels, *sample.shape[2:])
        areas = [len(rows) * h * w for rows, (h, w) in zip(self._rows, self.sizes, strict=True)]
        parts = positions.split(areas)
        for rows, (height, width), part in zip(self._rows, self.sizes, parts, strict=True):
            images = part.view(len(rows), height, width, channels).permute(0, 3, 1, 2)
            whole[rows, :, :height, :width] = images
        return whole


class Sizes:
    """The sizes that came lately beside others are kept, for each largest one.

    A call is laid out for all of them, so that calls with rows of some of them are traced once.
    """

    def __init__(self) -> None:
        self._lately: dict[Size, list[Size]] = {}

    def lately(self, sizes: Sequence[Size]) -> list[Size]:
        """Add the sizes of a call's rows, and return those that came lately, in a fixed order."""
        now = list(dict.fromkeys(sizes))
        if len(now) == 1:
            return now
        whole = canvas.largest(now)
        before = [one for one in self._lately.get(whole, ()) if one not in now]
        self._lately[whole] = [*now, *before][: max(MOST, len(now))]
        return sorted(self._lately[whole], reverse=True)


@dataclass(frozen=True)
class Positions:
    """Positions are a list at one depth of the UNet: see `by_size`."""

    counts: Tensor
    sizes: list[int]

    @property
    def halved(self) -> Positions:
        return Positions(self.counts, [side // 2 for side in self.sizes])

    @property
    def doubled(self) -> Positions:
        return Positions(self.counts, [side * 2 for side in self.sizes])


@dataclass(frozen=True)
class Texts:
    """These are the texts of a call, (texts, tokens, features), and which rows have which."""

    states: Tensor
    bias: Tensor | None
    runs: Tensor


class PositionsCall:
    """This is a call as `graphs` takes it: a function of the tensors of a layout."""

    def __init__(self, family: Any, sizes: Sequence[Size]) -> None:
        self.family = family
        self.structure = tuple(sizes)

    def __call__(self, inputs: Sequence[Tensor | None]) -> Tensor:
        """Return the output, (positions, channels)."""
        sample, timesteps, counts, runs, states, mask, pooled, time_ids, guidance = inputs
        assert sample is not None and counts is not None and runs is not None
        assert timesteps is not None and states is not None
        bias = None if mask is None else ((1 - mask.to(sample.dtype)) * canvas.HIDDEN)[:, None]
        at = Positions(counts, [side for size in self.structure for side in size])
        conditions = Conditioning(states, pooled, time_ids, guidance)
        added = self.family.added_conditions(conditions)
        unet = self.family.unet
        embedding = unet.time_embedding(unet.time_proj(timesteps).to(sample.dtype), guidance)
        more = unet.get_aug_embed(embedding, states, added)
        embedding = functional.silu(embedding if more is None else embedding + more)
        return _unet(unet, sample, at, embedding, Texts(states, bias, runs))

    def fewest(self, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return inputs of the same structure with one row of each size."""
        sample, timesteps, _, _, states, mask, *conditions = inputs
        assert sample is not None and timesteps is not None and states is not None
        rows, area = len(self.structure), sum(height * width for height, width in self.structure)
        return [
            sample[:1].expand(area, -1).contiguous(),
            timesteps[:1].expand(rows),
            torch.ones(rows, dtype=torch.long),
            torch.tensor([[index, 1, 0, 1] for index in range(rows)]),
            states[:1],
            None if mask is None else mask[:1],
            *(None if one is None else one[:1].expand(rows, -1) for one in conditions),
        ]


def _unet(unet: Any, sample: Tensor, at: Positions, embedding: Tensor, texts: Texts) -> Tensor:
    """Return the UNet's output of (positions, channels); `embedding` (rows, features) is SiLU's."""
    hidden = unet.conv_in.by_size(sample, at.counts, at.sizes)
    skips = [hidden]
    for block in unet.down_blocks:
        for resnet, transformer in _layers(block):
            hidden = _resnet(resnet, hidden, at, embedding)
            hidden = _transformer(transformer, hidden, at, texts)
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = downsampler.conv.by_size(hidden, at.counts, at.sizes)
            at = at.halved
            skips.append(hidden)
    first, *resnets = unet.mid_block.resnets
    hidden = _resnet(first, hidden, at, embedding)
    for transformer, resnet in zip(unet.mid_block.attentions, resnets, strict=True):
        hidden = _resnet(resnet, _transformer(transformer, hidden, at, texts), at, embedding)
    for block in unet.up_blocks:
        for resnet, transformer in _layers(block):
            hidden = _resnet(resnet, torch.cat([hidden, skips.pop()], dim=1), at, embedding)
            hidden = _transformer(transformer, hidden, at, texts)
        for upsampler in block.upsamplers or ():
            hidden = by_size.doubled(hidden, at.counts, at.sizes)
            at = at.doubled
            hidden = upsampler.conv.by_size(hidden, at.counts, at.sizes)
    output: Tensor = unet.conv_out.by_size(hidden, at.counts, at.sizes, unet.conv_norm_out)
    return output


def _layers(block: Any) -> Iterator[tuple[Any, Any]]:
    """Return the residual blocks of a block, each with the transformer behind it."""
    transformers = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return zip(block.resnets, transformers, strict=True)


def _resnet(resnet: Any, hidden: Tensor, at: Positions, embedding: Tensor) -> Tensor:
    time = resnet.time_emb_proj(embedding)
    made = resnet.conv1.by_size(hidden, at.counts, at.sizes, resnet.norm1, time)
    made = resnet.conv2.by_size(made, at.counts, at.sizes, resnet.norm2)
    if resnet.conv_shortcut is not None:
        hidden = _linear(resnet.conv_shortcut, hidden)
    output: Tensor = (made + hidden) / resnet.output_scale_factor
    return output


def _transformer(transformer: Any, hidden: Tensor, at: Positions, texts: Texts) -> Tensor:
    if transformer is None:
        return hidden
    normed = by_size.group_norm(hidden, at.counts, at.sizes, *by_size.of(transformer.norm))
    made = _linear(transformer.proj_in, normed)
    for block in transformer.transformer_blocks:
        made = _self_attention(block.attn1, block.norm1(made), at) + made
        made = _text_attention(block.attn2, block.norm2(made), at, texts) + made
        made = block.ff(block.norm3(made)) + made
    return _linear(transformer.proj_out, made) + hidden


def _self_attention(attention: Any, hidden: Tensor, at: Positions) -> Tensor:
    query, key, value = (layer(hidden) for layer in _projections(attention))
    made = by_size.self_attention(query, key, value, at.counts, at.sizes, attention.heads)
    output: Tensor = attention.to_out[0](made)
    return output


def _text_attention(attention: Any, hidden: Tensor, at: Positions, texts: Texts) -> Tensor:
    to_query, to_key, to_value = _projections(attention)
    made = by_size.text_attention(
        to_query(hidden),
        to_key(texts.states),
        to_value(texts.states),
        texts.runs,
        at.sizes,
        attention.heads,
        texts.bias,
    )
    output: Tensor = attention.to_out[0](made)
    return output


def _projections(attention: Any) -> tuple[Any, Any, Any]:
    return attention.to_q, attention.to_k, attention.to_v


def _linear(layer: Any, hidden: Tensor) -> Tensor:
    """Run a linear layer, or a convolution of 1x1, which is one."""
    return functional.linear(hidden, layer.weight.flatten(1), layer.bias)


# -- which models -----------------------------------------------------------------------------


def fits(unet: Any) -> bool:
    """Return whether `PositionsCall` computes what a UNet does, after `pack`."""
    if not canvas.multiple(unet):
        return False
    config, others = unet.config, (unet.class_embedding, unet.time_embed_act, unet.encoder_hid_proj)
    return (
        not any(others)
        and unet.conv_norm_out is not None
        and config.act_fn == "silu"
        and config.addition_embed_type in (None, "text_time")
        and not config.center_input_sample
        and all(_known(module) for module in unet.modules())
    )


def _known(module: Any) -> bool:
    """Return whether a module is of a kind that is computed here, or whose forward is called."""
    kind = type(module).__name__
    if kind == "ResnetBlock2D":
        resampled = module.upsample or module.downsample or module.skip_time_act
        return module.time_emb_proj is not None and not resampled
    if kind == "BasicTransformerBlock":
        both = module.attn2 is not None and not module.only_cross_attention
        return bool(both and module.norm_type == "layer_norm" and module.pos_embed is None)
    if kind == "Attention":
        norms = (module.group_norm, module.spatial_norm, module.norm_q, module.norm_k)
        plain = not any(norms) and not module.norm_cross and not module.residual_connection
        usual = type(module.processor).__name__ == "AttnProcessor2_0"
        return plain and usual and module.rescale_output_factor == 1
    if kind == "Downsample2D":
        return module.norm is None and module.use_conv and bool(module.padding == 1)
    if kind == "Upsample2D":
        return module.norm is None and module.use_conv and not module.use_conv_transpose
    if isinstance(module, nn.Conv2d):
        return isinstance(module, PackedConv2d | PointwiseConv2d)
    return kind != "DualTransformer2DModel"
