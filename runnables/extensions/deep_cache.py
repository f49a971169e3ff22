"""DeepCache (arXiv:2312.00858) runs only the outermost blocks between whole UNet calls.

What enters the last up block changes slowly from step to step. A full call keeps it; a shallow call
runs the first down block and the last up block around the kept one, on diffusers' own modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.extensions.base import Call, Denoise, Extension, RowState, Stacked
from runnables.families.base import Conditioning
from runnables.families.unet import UNetFamily
from runnables.parameters import Parameters

#: key of what a row keeps of its last full call, (1 or 2, channels, h, w): of the conditional and,
#: where it was guided, of the unconditional row
FEATURES = "deep_cache"


class DeepCache(Extension):
    """This extension makes whole UNet calls at every n-th step only, on request."""

    name = "deep_cache_interval"
    splits = True

    def check(self, parameters: Parameters) -> None:
        if parameters.controlnets:
            raise InvalidInput(
                "deep_cache_interval skips what ControlNets act on: leave out one of the two",
                loc=(self.name,),
            )

    def load(self, parameters: Parameters) -> int:
        return parameters.deep_cache_interval

    def acts(self, part: int, row: RowState) -> bool:
        """Return whether the next call can use the features of an earlier one."""
        features = row.kept.get(FEATURES)
        due = row.step % part == 0
        return not due and features is not None and len(features) >= (2 if row.guided else 1)

    def stack(self, stacked: Stacked, parts: Sequence[int | None]) -> Call:
        family = cast(UNetFamily, self.family)
        first = parts[0]
        if first is not None and self.acts(first, stacked.rows[0]):
            return ShallowCall(family, stacked)
        keeping = [i for i, part in enumerate(parts) if part is not None]
        return KeepingCall(family, stacked, keeping)


class ShallowCall(Call):
    """This call runs the outermost blocks, for rows that all have features."""

    def __init__(self, family: UNetFamily, stacked: Stacked) -> None:
        self._family = family
        self._conditioning = stacked.conditioning
        conditional = len(stacked.rows)
        features = [row.kept[FEATURES] for row in stacked.rows]
        places = [
            (index, int(conditional <= number < conditional + stacked.guided))
            for number, index in enumerate(stacked.order)
        ]
        self._features = torch.stack([features[index][place] for index, place in places])

    def around(self, denoise: Denoise) -> Denoise:
        def shallow(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            return predict_shallow(
                self._family, sample, timesteps, self._conditioning, self._features
            )

        return shallow


class KeepingCall(Call):
    """This call runs the whole UNet, and leaves features with the rows `keeping`."""

    def __init__(self, family: UNetFamily, stacked: Stacked, keeping: Sequence[int]) -> None:
        self._family = family
        rows, guided = stacked.rows, stacked.guided
        #: each row with the numbers of its conditional and, where it is guided, unconditional row
        self._keeping = [
            (
                rows[i],
                torch.tensor([i, len(rows) + i] if i < guided else [i], device=family.device),
            )
            for i in keeping
        ]

    def around(self, denoise: Denoise) -> Denoise:
        def keeping(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            with kept_features(self._family) as kept:
                output = denoise(sample, timesteps, **extra)
            for row, numbers in self._keeping:
                row.kept[FEATURES] = kept[0][numbers]
            return output

        return keeping


@contextmanager
def kept_features(family: UNetFamily) -> Iterator[list[Tensor]]:
    """Append what enters the UNet's last up block to the list while the context is open.

    (U, channels, h, w) in the model's dtype.
    """
    kept: list[Tensor] = []

    def keep(block: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept.append(named["hidden_states"])

    handle = family.unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code knows no hooks
            yield kept
    finally:
        handle.remove()


def predict_shallow(
    family: UNetFamily,
    sample: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    features: Tensor,
) -> Tensor:
    """Return the UNet's output from the features that an earlier call kept for the same rows."""
    unet = family.unet
    added = family.added_conditions(conditioning)
    text, sample = conditioning.hidden_states, sample.to(family.dtype)
    embedding = unet.time_embedding(
        unet.get_time_embed(sample=sample, timestep=timesteps), conditioning.guidance
    )
    augmented = unet.get_aug_embed(
        emb=embedding, encoder_hidden_states=text, added_cond_kwargs=added
    )
    if augmented is not None:
        embedding = embedding + augmented
    text = unet.process_encoder_hidden_states(encoder_hidden_states=text, added_cond_kwargs=added)
    first, last = unet.down_blocks[0], unet.up_blocks[-1]
    hidden = unet.conv_in(sample)
    _, skips = first(hidden_states=hidden, temb=embedding, **_text_of(first, text))
    hidden = last(
        hidden_states=features,
        temb=embedding,
        res_hidden_states_tuple=(hidden, *skips)[: len(last.resnets)],
        **_text_of(last, text),
    )
    output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return output


def _text_of(block: Any, text: Tensor) -> dict[str, Tensor]:
    attends = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": text} if attends else {}
