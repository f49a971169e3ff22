"""DeepCache (arXiv:2312.00858): between full UNet calls, only the outermost blocks are run.

What enters the last up block changes slowly from step to step. A full call keeps it; a shallow call
runs the first down block and the last up block around the kept one, on diffusers' own modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from runnables.families.base import Conditioning, Pipeline


@contextmanager
def kept_features(pipeline: Pipeline) -> Iterator[list[Tensor]]:
    """While open, a call of `predict` puts what enters its last up block into the list.

    (U, channels, h, w) in the pipeline's dtype.
    """
    kept: list[Tensor] = []

    def keep(block: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept.append(named["hidden_states"])

    handle = pipeline.unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


def predict_shallow(
    pipeline: Pipeline,
    sample: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    features: Tensor,
) -> Tensor:
    """As `Pipeline.predict`, with the features that an earlier call kept for the same rows."""
    unet = pipeline.unet
    added = pipeline.added_conditions(conditioning)
    text, sample = conditioning.hidden_states, sample.to(pipeline.dtype)
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
