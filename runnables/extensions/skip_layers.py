"""Stable Diffusion 3.5 Medium was published with this skip-layer guidance.

Beside its conditional and its unconditional row, an image has a third one whose hidden states pass
some of the transformer's blocks unchanged. The image is guided away from what that row predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from runnables.errors import InvalidInput
from runnables.extensions.base import Call, Extension, RowState, Stacked
from runnables.extensions.hooks import Hook, HookedCall
from runnables.parameters import Parameters, SkipLayerGuidance


class SkipLayers(Extension):
    """This extension adds a third row to guided rows, between two fractions of the steps."""

    name = "skip_layer_guidance"

    def check(self, parameters: Parameters) -> None:
        wanted, blocks = (
            parameters.skip_layer_guidance,
            len(self.family.denoiser.transformer_blocks),
        )
        if wanted and max(wanted.layers) >= blocks:
            raise InvalidInput(
                f"skip_layer_guidance.layers: this model has layers 0 to {blocks - 1}",
                loc=(self.name, "layers"),
            )

    def extra_rows(self, parameters: Parameters) -> float:
        wanted = parameters.skip_layer_guidance
        return max(0.0, wanted.stop - wanted.start) if wanted else 0.0

    def load(self, parameters: Parameters) -> SkipLayerGuidance | None:
        return parameters.skip_layer_guidance

    def acts(self, part: SkipLayerGuidance, row: RowState) -> bool:
        """Return whether it acts by diffusers' rule, which leaves out both ends."""
        within = row.steps * part.start < row.step < row.steps * part.stop
        return row.guided and within

    def rows(self, part: SkipLayerGuidance, row: RowState) -> int:
        return int(self.acts(part, row))

    def stack(self, stacked: Stacked, parts: Sequence[SkipLayerGuidance | None]) -> Call | None:
        numbers = stacked.further.get(self.name, ())
        if not numbers:
            return None
        images = [stacked.order[number] for number in numbers]
        family = self.family
        own = [parts[i] for i in images]
        return SkipCall(family.denoiser, family.device, numbers, images, own)


class SkipCall(HookedCall):
    """This call runs the third rows of a batch.

    Args:
        device: that the rows are on; a streamed transformer's weights may not be there.
        numbers: of these rows among the U denoiser rows.
        images: for each, the index of its image among the R rows.
    """

    def __init__(
        self,
        transformer: Any,
        device: torch.device,
        numbers: Sequence[int],
        images: Sequence[int],
        parts: Sequence[SkipLayerGuidance | None],
    ) -> None:
        known = [part for part in parts if part is not None]
        self._numbers = torch.tensor(numbers, device=device)
        self._images = torch.tensor(images, device=device)
        scales = torch.tensor([part.scale for part in known], device=device)
        self._scales = scales.view(-1, 1, 1, 1)
        layers = sorted({layer for part in known for layer in part.layers})
        hooks: list[Hook] = []
        for layer in layers:
            rows = [n for n, part in zip(numbers, known, strict=True) if layer in part.layers]
            passing = partial(_pass_unchanged, torch.tensor(rows, device=device))
            hooks.append((transformer.transformer_blocks[layer], passing))
        super().__init__(hooks)

    def guide(self, guided: Tensor, output: Tensor) -> Tensor:
        away = (output[self._images] - output[self._numbers]) * self._scales
        return guided.index_add(0, self._images, away)


def _pass_unchanged(
    rows: Tensor,
    _block: nn.Module,
    _given: tuple[Any, ...],
    named: dict[str, Tensor],
    output: tuple[Tensor | None, Tensor],
) -> tuple[Tensor | None, Tensor]:
    """Return what went into the block for these rows, as a hook on its output."""
    text, image = output
    if text is not None:
        text = text.index_copy(0, rows, named["encoder_hidden_states"][rows].to(text.dtype))
    return text, image.index_copy(0, rows, named["hidden_states"][rows].to(image.dtype))
