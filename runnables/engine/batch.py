"""A step stacks rows into one denoiser call, guides them, and advances each by its own sampler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.extensions.base import Call, Extension, Stacked
from runnables.families.base import Conditioning
from runnables.families.guidance import guide
from runnables.families.latents import draw_noise
from runnables.samplers.table import SamplerTable, advance, pad_depth


class Batch:
    """A batch has R rows of one BatchKey; it is stacked anew when one joins, leaves or changes.

    Guided rows come first, so that conditional outputs are rows 0..R-1 of the denoiser's batch and
    unconditional ones rows R..R+G-1. Rows that extensions ask for follow, and then padding up to
    the accelerator's bucket.

    Attributes:
        buffer: (R, depth + 2, C, h, w) float32: sampler state, then model output, then noise.
    """

    def __init__(self, rows: Sequence[Row], accelerator: Accelerator) -> None:
        self.rows = sorted(rows, key=lambda row: not row.guided)
        self.guided = sum(row.guided for row in self.rows)
        self.signature = signature(rows)
        self._accelerator = accelerator
        self._family = self.rows[0].stage.family
        self._depth = max(row.stage.table.depth for row in self.rows)
        self.buffer = self._stack_state()
        stacked = self._stack_rows()
        self._order = torch.tensor(stacked.order, device=accelerator.device)
        self._conditioning = stacked.conditioning
        self._calls = self._stack_extensions(stacked)
        self._channels = self._stack_channels()
        self._scale = self._column(row.stage.guidance_scale for row in self.rows[: self.guided])
        self._rescale = self._column(row.stage.guidance_rescale for row in self.rows[: self.guided])
        self._masked = [i for i, row in enumerate(self.rows) if row.start.mask is not None]
        self._blend = self._stack_blend() if self._masked else None

    def step(self) -> list[Row]:
        """Advance every row by one denoiser call, and return the rows whose image is denoised.

        Nothing is changed when the denoiser fails, so the rows can be retried in other batches.
        """
        coefficients, input_scale, timesteps, renoise = self._tables()
        sample = (self.buffer[:, 0] * input_scale.view(-1, 1, 1, 1))[self._order]
        if self._channels is not None:
            sample = torch.cat([sample, self._channels], dim=1)
        output = self._denoise(sample, timesteps[self._order]).float()
        self.buffer[:, self._depth] = self._guide(output)
        self._draw_noise()
        self.buffer[:, : self._depth] = advance(self.buffer, coefficients)
        self._keep_unmasked(renoise)
        return self._count_step()

    def output(self, row: Row) -> Tensor:
        """Return the guided model output of the step a row has just taken, (C, h, w) float32."""
        return self.buffer[self.rows.index(row), self._depth]

    # -- one step's parts -------------------------------------------------------------------

    def _tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return each row's coefficients at its own step, brought to the device in one copy.

        Returns:
            coefficients (R, depth, depth + 2), input_scale (R,), timesteps (R,), renoise (R, 2).
        """
        packed = torch.stack(
            [_packed(row.stage.table, self._depth)[row.step] for row in self.rows]
        ).to(self._accelerator.device, non_blocking=True)
        depth = self._depth
        matrix, rest = packed.split([depth * (depth + 2), 4], dim=1)
        return matrix.view(-1, depth, depth + 2), rest[:, 0], rest[:, 1], rest[:, 2:]

    def _denoise(self, sample: Tensor, timesteps: Tensor) -> Tensor:
        """Run a denoiser call, with every extension around it."""

        def plain(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            return self._family.denoise(sample, timesteps, self._conditioning, **extra)

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

    def _draw_noise(self) -> None:
        """Draw fresh noise for the rows whose sampler needs it at this step."""
        for i, row in enumerate(self.rows):
            if row.stage.table.draws_noise[row.step]:
                shape = (1, *row.state.shape[1:])
                self.buffer[i, -1] = draw_noise(shape, row.start.generator, self._family)[0]

    def _keep_unmasked(self, renoise: Tensor) -> None:
        """Put the input at the next noise level outside the mask, where rows need it."""
        if self._blend is None:
            return
        mask, image_latents, noise = self._blend
        weights = renoise[self._masked].view(-1, 2, 1, 1, 1)
        kept = weights[:, 0] * image_latents + weights[:, 1] * noise
        self.buffer[self._masked, 0] = (1 - mask) * kept + mask * self.buffer[self._masked, 0]

    def _count_step(self) -> list[Row]:
        done = []
        for i, row in enumerate(self.rows):
            row.state = self.buffer[i, : row.stage.table.depth]
            if row.advance():
                done.append(row)
        return done

    # -- stacking ---------------------------------------------------------------------------

    def _stack_state(self) -> Tensor:
        _, *shape = self.rows[0].state.shape
        buffer = torch.zeros(
            len(self.rows),
            self._depth + 2,
            *shape,
            dtype=torch.float32,
            device=self._accelerator.device,
        )
        for i, row in enumerate(self.rows):
            buffer[i, : row.state.shape[0]] = row.state
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
        return torch.stack(channels)[self._order] if channels else None

    def _stack_blend(self) -> tuple[Tensor, Tensor, Tensor]:
        starts = [self.rows[i].start for i in self._masked]
        masks, images, noises = zip(
            *((start.mask, start.image_latents, start.noise) for start in starts), strict=True
        )
        return torch.stack(masks), torch.stack(images), torch.stack(noises)

    def _column(self, values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=self._accelerator.device)


def signature(rows: Sequence[Row]) -> frozenset[tuple[object, ...]]:
    """Return what a Batch was stacked for: the batch serves again as long as this is the same."""
    return frozenset((id(row), row.guided, id(row.stage), row.acting) for row in rows)


@lru_cache(maxsize=1024)
def _packed(table: SamplerTable, depth: int) -> Tensor:
    """Pack coefficients, input scale, timestep and renoise: (K, depth * (depth + 2) + 4)."""
    padded = pad_depth(table, depth)
    return torch.cat(
        [
            padded.coefficients.flatten(1),
            padded.input_scale[:, None],
            padded.timesteps[:, None].float(),
            padded.renoise,
        ],
        dim=1,
    )
