"""A step stacks rows into one denoiser call, guides them, and advances each by its own sampler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.extensions.base import Call, Extension, Stacked
from runnables.families.base import Conditioning, Size
from runnables.families.canvas import Canvas, largest
from runnables.families.guidance import guide
from runnables.samplers.stacked import StackedTables
from runnables.samplers.table import advance


class Batch:
    """A batch has R rows of one BatchKey; it is stacked anew when one joins, leaves or changes.

    Guided rows come first, so that conditional outputs are rows 0..R-1 of the denoiser's batch and
    unconditional ones rows R..R+G-1. Rows that extensions ask for follow, and then padding up to
    the accelerator's bucket. Rows of different sizes lie in the upper left corners of a canvas
    (`families/canvas.py`). All that a step needs is on the device before it: a step reads no value
    back and copies nothing there, so that the device never waits for Python.

    Attributes:
        size: (height, width) of the largest row's latents, along each side.
        buffer: (R, depth + 2, C, h, w) float32: sampler state, then model output, then noise.
            What lies outside of a row is zero.
    """

    def __init__(self, rows: Sequence[Row], accelerator: Accelerator) -> None:
        self.rows = sorted(rows, key=lambda row: not row.guided)
        self.guided = sum(row.guided for row in self.rows)
        self.signature = signature(rows)
        self.size = largest([row.size for row in rows])
        self._accelerator = accelerator
        self._family = self.rows[0].stage.family
        self._tables = StackedTables(
            [row.stage.table for row in self.rows],
            [row.step for row in self.rows],
            accelerator.device,
        )
        self._depth = self._tables.depth
        self.buffer = self._stack_state()
        stacked = self._stack_rows()
        self._order = self._indices(stacked.order)
        self._conditioning = stacked.conditioning
        self._calls = self._stack_extensions(stacked)
        self._channels = self._stack_channels()
        self._scale = self._column(row.stage.guidance_scale for row in self.rows[: self.guided])
        rescale = [row.stage.guidance_rescale for row in self.rows[: self.guided]]
        self._rescale = self._column(rescale) if any(rescale) else None
        self._blend = self._stack_blend()

    def step(self) -> list[Row]:
        """Advance every row by one denoiser call, and return the rows whose image is denoised.

        Nothing is changed when a part of it fails, so the rows can be retried in other batches.
        """
        now = self._tables.current()
        sample = (self.buffer[:, 0] * now.input_scale.view(-1, 1, 1, 1))[self._order]
        if self._channels is not None:
            sample = torch.cat([sample, self._channels], dim=1)
        output = self._denoise(sample, now.timesteps[self._order]).float()
        self.buffer[:, self._depth] = self._inside(self._guide(output))
        self._place_noise()
        state = self._keep_unmasked(advance(self.buffer, now.matrix), now.renoise)
        self._tables.advance()
        self.buffer[:, : self._depth] = state
        return self._count_step()

    def output(self, row: Row) -> Tensor:
        """Return the guided model output of the step a row has just taken, (C, h, w) float32."""
        return _part(self.buffer[self.rows.index(row), self._depth], row.size)

    # -- one step's parts -------------------------------------------------------------------

    def _denoise(self, sample: Tensor, timesteps: Tensor) -> Tensor:
        """Run a denoiser call, with every extension around it."""

        def plain(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            return self._family.denoise(sample, timesteps, self._conditioning, **extra)

        if not self._calls:
            return self._accelerator.denoise(self._family, sample, timesteps, self._conditioning)
        denoise = plain
        for call in reversed(self._calls):
            denoise = call.around(denoise)
        return denoise(sample, timesteps)

    def _guide(self, output: Tensor) -> Tensor:
        rows, guided = len(self.rows), self.guided
        result = output[:rows]
        if guided:
            both = guide(output[:guided], output[rows : rows + guided], self._scale, self._rescale)
            result = torch.cat([both, output[guided:rows]])
        for call in self._calls:
            result = call.guide(result, output)
        return result

    def _inside(self, output: Tensor) -> Tensor:
        """Return the output with zero outside of each row."""
        canvas = self._conditioning.canvas
        return (
            output if canvas is None else output * canvas.level(*self.size).mask[: len(self.rows)]
        )

    def _place_noise(self) -> None:
        """Bring in the noise of this step, for the rows whose sampler needs it."""
        for i, row in enumerate(self.rows):
            if (noise := row.next_noise()) is not None:
                _part(self.buffer[i, -1], row.size).copy_(noise)

    def _keep_unmasked(self, state: Tensor, renoise: Tensor) -> Tensor:
        """Put the input at the next noise level outside the mask, where rows need it."""
        if self._blend is None:
            return state
        rows, mask, image_latents, noise = self._blend
        weights = renoise[rows].view(-1, 2, 1, 1, 1)
        kept = weights[:, 0] * image_latents + weights[:, 1] * noise
        state[rows, 0] = (1 - mask) * kept + mask * state[rows, 0]
        return state

    def _count_step(self) -> list[Row]:
        done = []
        for i, row in enumerate(self.rows):
            row.state = _part(self.buffer[i, : row.stage.table.depth], row.size)
            if row.advance():
                done.append(row)
        return done

    # -- stacking ---------------------------------------------------------------------------

    def _stack_state(self) -> Tensor:
        buffer = torch.zeros(
            len(self.rows),
            self._depth + 2,
            self.rows[0].state.shape[1],
            *self.size,
            dtype=torch.float32,
            device=self._accelerator.device,
        )
        for i, row in enumerate(self.rows):
            _part(buffer[i, : row.state.shape[0]], row.size).copy_(row.state)
        return buffer

    def _stack_rows(self) -> Stacked:
        order = [*range(len(self.rows)), *range(self.guided)]
        further: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            for extension, part in row.stage.active:
                for _ in range(extension.rows(part, row)):
                    further.setdefault(extension.name, []).append(len(order))
                    order.append(index)
        padding = self._accelerator.pad(len(order)) - len(order)
        order += [0] * padding
        positive = [row.stage.positive for row in self.rows]
        negative = [row.stage.negative for row in self.rows[: self.guided] if row.stage.negative]
        rest = [positive[index] for index in order[len(positive) + len(negative) :]]
        conditioning = Conditioning.stack([*positive, *negative, *rest])
        sizes = [self.rows[index].size for index in order]
        if len(set(sizes)) > 1:
            family = self._family
            canvas = Canvas(sizes, family.traits.canvas_multiple, family.device, family.dtype)
            conditioning = replace(conditioning, canvas=canvas)
        return Stacked(self._family, self.rows, self.guided, order, further, conditioning)

    def _stack_extensions(self, stacked: Stacked) -> list[Call]:
        every: dict[Extension, None] = {}
        for row in self.rows:
            every |= dict.fromkeys(one for one, _ in row.stage.active)
        by_row = [dict(row.stage.active) for row in self.rows]
        known = self.rows[0].work.model.extensions
        calls = (
            one.stack(stacked, [parts.get(one) for parts in by_row])
            for one in sorted(every, key=known.index)
        )
        return [call for call in calls if call is not None]

    def _stack_channels(self) -> Tensor | None:
        channels = [row.start.channels for row in self.rows if row.start.channels is not None]
        return self._fitted(channels)[self._order] if channels else None

    def _stack_blend(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return the numbers of the rows that inpaint, with their masks, images and noises."""
        masked = [i for i, row in enumerate(self.rows) if row.start.mask is not None]
        if not masked:
            return None
        starts = [self.rows[i].start for i in masked]
        masks, images, noises = zip(
            *((start.mask, start.image_latents, start.noise) for start in starts), strict=True
        )
        stacks = self._fitted(masks), self._fitted(images), self._fitted(noises)
        return self._indices(masked), *stacks

    def _fitted(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stack (C, h, w) tensors of the rows' sizes, with zeros outside of each."""
        height, width = self.size
        return torch.stack(
            [pad(one, (0, width - one.shape[2], 0, height - one.shape[1])) for one in tensors]
        )

    def _indices(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(list(values), device=self._accelerator.device)

    def _column(self, values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=self._accelerator.device)


def load_of(rows: Sequence[Row]) -> tuple[float, int]:
    """Return the load of a call with these rows, and the latent positions of its largest one.

    The load of rows that are listed counts by their positions.
    """
    height, width = largest([row.size for row in rows])
    area = height * width
    if not all(row.listed for row in rows):
        return sum(row.load for row in rows), area
    return sum(row.load * row.size[0] * row.size[1] for row in rows) / area, area


def _part(tensor: Tensor, size: Size) -> Tensor:
    """Return what belongs to a row of (height, width), as a view of (..., h, w)."""
    return tensor[..., : size[0], : size[1]]


def signature(rows: Sequence[Row]) -> frozenset[tuple[object, ...]]:
    """Return what a Batch was stacked for: the batch serves again as long as this is the same."""
    return frozenset((id(row), row.guided, id(row.stage), row.acting) for row in rows)
