"""This is the seam between the engine and a model family: text in, latents and pixels out.

A family holds no loop and no request: the engine owns the steps. All methods run under
`torch.inference_mode()` on the engine's thread, and change nothing in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.families.text.prompts import Embedding, Text
from runnables.samplers.names import Prediction

if TYPE_CHECKING:
    from runnables.checkpoints.checkpoint import Checkpoint
    from runnables.families.canvas import Canvas

Size = tuple[int, int]


@dataclass(frozen=True)
class Traits:
    """Traits are what the engine and the extensions know of a loaded model; they never change.

    Attributes:
        family: its name, for messages and for `GET /models`.
        latent_channels: of the latents.
        scale_factor: pixels that a latent covers along each side.
        size_multiple: height and width in pixels must be multiples of this.
        native_size: (height, width) in pixels that the model was trained for.
        largest_side: pixels beyond which the denoiser knows no positions; 0: it has no such end.
        prediction: what the denoiser's output is: epsilon, v_prediction, sample or flow.
        features: names of the parameters, beside those that every model takes, which it takes.
        inpaints_only: whether the denoiser needs mask and masked image beside the sample.
        text_only: whether it starts from no image: neither image to image nor inpainting.
        noise_patch: noise is drawn for patches of so many latents along a side, as channels.
        distilled_guidance: whether the guidance scale is an input of the denoiser, so that no
            unconditional row is run.
        deepest_clip_skip: the largest `clip_skip` that the text encoders have layers for.
        compiled: whether its shapes are fixed, for which most features have no graph.
        canvas_multiple: rows whose latents' sides are multiples of this may share a call with rows
            of other sizes and prompt lengths; 0: none may.
    """

    family: str
    latent_channels: int
    scale_factor: int
    size_multiple: int
    native_size: Size
    prediction: Prediction
    features: frozenset[str]
    inpaints_only: bool = False
    text_only: bool = False
    noise_patch: int = 1
    distilled_guidance: bool = False
    deepest_clip_skip: int = 0
    largest_side: int = 0
    compiled: bool = False
    canvas_multiple: int = 0

    @property
    def latent_size(self) -> Size:
        """Return (height, width) of latents of the native size."""
        return self.latents_of(self.native_size)

    def latents_of(self, size: Size) -> Size:
        """Return (height, width) of the latents of an image of (height, width) pixels."""
        return size[0] // self.scale_factor, size[1] // self.scale_factor

    def area(self, size: Size) -> int:
        """Return the latent positions of an image of (height, width) pixels."""
        height, width = self.latents_of(size)
        return height * width

    def check(self, feature: str) -> None:
        """Raise InvalidInput where the model does not take this parameter, naming both."""
        if feature in self.features:
            return
        if self.compiled:
            raise InvalidInput(f"{feature} needs a model that is not compiled", loc=(feature,))
        raise InvalidInput(f"{self.family} models do not take {feature}", loc=(feature,))


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The denoiser takes this beside sample and timestep; one row, or stacked on a leading axis.

    Attributes:
        hidden_states: (tokens, features), the encoded text.
        pooled: (features,), the pooled text of families that have one.
        time_ids: (6,) or (5,), SDXL's sizes and crops, or the refiner's aesthetic score.
        guidance: (...), the guidance scale as distilled models take it.
        tokens: for each row, how many of `hidden_states` are text, in families that leave out the
            rest; as Python numbers, because a call that reads them back waits for the device.
        mask: (tokens,) bool, which of `hidden_states` belong to the row, where rows of different
            prompt lengths are stacked.
        canvas: of all rows, where rows of different sizes are stacked.
        texts: for each row of a stack, the first row whose `hidden_states` are the same.
    """

    hidden_states: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    guidance: Tensor | None = None
    tokens: tuple[int, ...] = ()
    mask: Tensor | None = None
    canvas: Canvas | None = None
    texts: tuple[int, ...] = ()

    @classmethod
    def stack(cls, rows: Sequence[Conditioning]) -> Conditioning:
        """Stack rows of one model along a new first axis, the shorter prompts masked."""
        hidden_states = [row.hidden_states for row in rows]
        lengths = [len(one) for one in hidden_states]
        mask = None
        if len(set(lengths)) > 1:
            mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            mask = mask.to(hidden_states[0].device)
        first = {id(one): index for index, one in reversed(list(enumerate(hidden_states)))}
        return cls(
            torch.nn.utils.rnn.pad_sequence(hidden_states, batch_first=True),
            _stack([row.pooled for row in rows]),
            _stack([row.time_ids for row in rows]),
            _stack([row.guidance for row in rows]),
            tuple(tokens for row in rows for tokens in row.tokens),
            mask,
            texts=tuple(first[id(one)] for one in hidden_states),
        )

    @property
    def tensors(self) -> list[Tensor | None]:
        """Return all that a call computes with; each has a leading axis of rows, if it is there."""
        return [self.hidden_states, self.pooled, self.time_ids, self.guidance, self.mask]

    def with_tensors(self, tensors: Sequence[Tensor | None]) -> Conditioning:
        """Return a conditioning of the same structure with other `tensors`."""
        hidden_states, pooled, time_ids, guidance, mask = tensors
        assert hidden_states is not None
        return Conditioning(hidden_states, pooled, time_ids, guidance, self.tokens, mask)

    def select(self, rows: Tensor) -> Conditioning:
        """Return these rows (n,) of what is stacked, in families without `tokens`."""
        assert not self.tokens
        return Conditioning(
            self.hidden_states[rows],
            None if self.pooled is None else self.pooled[rows],
            None if self.time_ids is None else self.time_ids[rows],
            None if self.guidance is None else self.guidance[rows],
        )


@dataclass(frozen=True)
class Levels:
    """A sampler's noise levels depend on this beside its own config.

    Attributes:
        mu: the shift of the levels, where it depends on the image's size.
        sigmas: the levels before the shift, where the family sets them itself.
    """

    mu: float | None = None
    sigmas: tuple[float, ...] | None = None


class Family(Protocol):
    """A family is a loaded model, as the engine sees it.

    Attributes:
        traits: what does not change.
        checkpoint: what the model was loaded from.
        number: unlike that of any other model of this process, also of one that is gone.
        noise_dtype: of the noise that text to image begins with, and of the samplers' own; the
            noise that is added to pictures has the model's `dtype`.
        listed: whether the accelerator runs rows of several sizes as one list of positions.
        denoiser, vae: the modules; `denoiser_name` is the former's name in model_index.json.
    """

    traits: Traits
    checkpoint: Checkpoint
    number: int
    device: torch.device
    dtype: torch.dtype
    noise_dtype: torch.dtype
    listed: bool
    denoiser: Any
    denoiser_name: str
    vae: Any

    def check(self, prompts: dict[str, Text]) -> None:
        """Raise InvalidInput where one of these prompts, by field, cannot be encoded."""
        ...

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        """Encode prompts, in one call those that can be together."""
        ...

    def empty(self, like: Embedding) -> Embedding | None:
        """Return what stands for "no negative prompt" where that is not the encoding of ""."""
        ...

    def lengthen(self, embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
        """Return `embedding` with at least so many tokens; `filler` is the encoding of ""."""
        ...

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        """Return the conditioning of one row that generates `size` (height, width) pixels."""
        ...

    def levels(self, size: Size, steps: int) -> Levels:
        """Return the noise levels of an image of (height, width) pixels in so many steps."""
        ...

    def denoise(
        self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning, **extra: Any
    ) -> Tensor:
        """Run one denoiser call.

        Args:
            sample: (U, channels, h, w), scaled as the sampler asks.
            timesteps: (U,) float32, one timestep per row.
            conditioning: stacked, U rows.
            extra: what extensions add, such as a ControlNet's `residuals`.

        Returns:
            (U, latent_channels, h, w) in the model's dtype.
        """
        ...

    def to_latents(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Sample (1, C, h, w) scaled latents from the posterior of (1, 3, H, W) in -1..1."""
        ...

    def to_pixels(self, latents: Tensor, *, fp32: bool = False) -> Tensor:
        """Turn (N, C, h, w) latents into (N, 3, H, W) float32 pixels in 0..1; NaN stays NaN.

        Args:
            fp32: decode in float32, for where half precision overflows.
        """
        ...

    def finished(self, latents: Tensor, *, inpainted: bool) -> Tensor:
        """Return (C, h, w) denoised latents as `to_pixels` takes them."""
        ...


@dataclass(frozen=True)
class Outline:
    """An outline has what is known of a family while its weights are not loaded."""

    traits: Traits
    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, family: Family) -> Outline:
        """Return a family's outline, which holds none of its weights."""
        checkpoint = replace(family.checkpoint, components={})
        return cls(family.traits, checkpoint, family.device, family.dtype)


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
