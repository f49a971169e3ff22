"""The step: rows stacked into one UNet call, guided, and advanced by their own samplers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.extensions.controlnet import residuals as controlnet
from runnables.extensions.controlnet.residuals import Residuals
from runnables.extensions.deep_cache import kept_features, predict_shallow
from runnables.extensions.lora.layers import applied, uses
from runnables.families.base import Conditioning
from runnables.families.guidance import guide
from runnables.families.latents import draw_noise
from runnables.samplers.table import SamplerTable, advance, pad_depth


class Batch:
    """R rows of one BatchKey. Stacked once; stacked anew only when a row joins or leaves.

    Guided rows come first, so that conditional outputs are rows 0..R-1 of the UNet's batch and
    unconditional ones rows R..R+G-1; the rest, up to the accelerator's bucket, is padding.

    Attributes:
        buffer: (R, depth + 2, C, h, w) float32: sampler state, then model output, then noise.
    """

    def __init__(self, rows: Sequence[Row], accelerator: Accelerator) -> None:
        self.rows = sorted(rows, key=lambda row: not row.guided)
        self.guided = sum(row.guided for row in self.rows)
        self.signature = signature(rows)
        self._accelerator = accelerator
        self._pipeline = self.rows[0].stage.pipeline
        self._depth = max(row.stage.table.depth for row in self.rows)
        self.buffer = self._stack_state()
        padding = accelerator.pad(len(self.rows) + self.guided) - len(self.rows) - self.guided
        order = [*range(len(self.rows)), *range(self.guided), *([0] * padding)]
        self._order = torch.tensor(order, device=accelerator.device)
        self._conditioning = self._stack_conditioning(padding)
        self._loras = uses([self.rows[i].stage.loras for i in order], accelerator.device)
        controls = [row.controls for row in self.rows]
        self._controls = controlnet.calls(controls, self.guided, self._conditioning)
        self._channels = self._stack_channels()
        self._scale = self._column(row.stage.guidance_scale for row in self.rows[: self.guided])
        self._rescale = self._column(row.stage.guidance_rescale for row in self.rows[: self.guided])
        self._masked = [i for i, row in enumerate(self.rows) if row.start.mask is not None]
        self._blend = self._stack_blend() if self._masked else None
        self._reusing = [i for i, r in enumerate(self.rows) if r.stage.deep_cache_interval > 1]
        self._features = self._stack_features(padding) if self.rows[0].shallow else None

    def step(self) -> list[Row]:
        """Advance every row by one UNet call. Returns the rows whose image is denoised.

        Nothing is changed when the UNet fails, so the rows can be retried in other company.
        """
        coefficients, input_scale, timesteps, renoise = self._tables()
        sample = (self.buffer[:, 0] * input_scale.view(-1, 1, 1, 1))[self._order]
        timesteps = timesteps[self._order]
        residuals = controlnet.residuals(self._pipeline, self._controls, sample, timesteps)
        if self._channels is not None:
            sample = torch.cat([sample, self._channels], dim=1)
        with applied(self._pipeline.unet, "unet", self._loras):
            output = self._predict(sample, timesteps, residuals)
        self.buffer[:, self._depth] = self._guide(output.float())
        self._draw_noise()
        self.buffer[:, : self._depth] = advance(self.buffer, coefficients)
        self._keep_unmasked(renoise)
        return self._count_step()

    def output(self, row: Row) -> Tensor:
        """(C, h, w) float32: the guided model output of the step a row has just taken."""
        return self.buffer[self.rows.index(row), self._depth]

    # -- one step's parts -------------------------------------------------------------------

    def _tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each row's coefficients at its own step, brought to the device in one copy.

        Returns:
            coefficients (R, depth, depth + 2), input_scale (R,), timesteps (R,), renoise (R, 2).
        """
        packed = torch.stack(
            [_packed(row.stage.table, self._depth)[row.step] for row in self.rows]
        ).to(self._accelerator.device, non_blocking=True)
        depth = self._depth
        matrix, rest = packed.split([depth * (depth + 2), 4], dim=1)
        return matrix.view(-1, depth, depth + 2), rest[:, 0], rest[:, 1], rest[:, 2:]

    def _predict(self, sample: Tensor, timesteps: Tensor, residuals: Residuals | None) -> Tensor:
        """A UNet call: whole, or shallow around the features that an earlier one kept."""
        given = (sample, timesteps, self._conditioning)
        if self._features is not None:
            return predict_shallow(self._pipeline, *given, self._features)
        if not self._reusing:
            return self._pipeline.predict(*given, residuals)
        with kept_features(self._pipeline) as kept:
            output = self._pipeline.predict(*given, residuals)
        for i in self._reusing:
            both = [i, len(self.rows) + i] if i < self.guided else [i]
            self.rows[i].features = kept[0][both]
        return output

    def _guide(self, output: Tensor) -> Tensor:
        rows, guided = len(self.rows), self.guided
        if not guided:
            return output[:rows]
        both = guide(output[:guided], output[rows : rows + guided], self._scale, self._rescale)
        return torch.cat([both, output[guided:rows]])

    def _draw_noise(self) -> None:
        """Fresh noise for the rows whose sampler asks for it at this step."""
        for i, row in enumerate(self.rows):
            if row.stage.table.draws_noise[row.step]:
                shape = (1, *row.state.shape[1:])
                self.buffer[i, -1] = draw_noise(shape, row.start.generator, self._pipeline)[0]

    def _keep_unmasked(self, renoise: Tensor) -> None:
        """4-channel inpainting: outside the mask, the input image at the next noise level."""
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

    def _stack_conditioning(self, padding: int) -> Conditioning:
        positive = [row.stage.positive for row in self.rows]
        negative = [row.stage.negative for row in self.rows[: self.guided] if row.stage.negative]
        return Conditioning.stack([*positive, *negative, *positive[:1] * padding])

    def _stack_channels(self) -> Tensor | None:
        channels = [row.start.channels for row in self.rows if row.start.channels is not None]
        return torch.stack(channels)[self._order] if channels else None

    def _stack_features(self, padding: int) -> Tensor:
        features = [row.features for row in self.rows if row.features is not None]
        positive, negative = [f[0] for f in features], [f[1] for f in features[: self.guided]]
        return torch.stack([*positive, *negative, *positive[:1] * padding])

    def _stack_blend(self) -> tuple[Tensor, Tensor, Tensor]:
        starts = [self.rows[i].start for i in self._masked]
        masks, images, noises = zip(
            *((start.mask, start.image_latents, start.noise) for start in starts), strict=True
        )
        return torch.stack(masks), torch.stack(images), torch.stack(noises)

    def _column(self, values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=self._accelerator.device)


def signature(rows: Sequence[Row]) -> frozenset[tuple[object, ...]]:
    """What a Batch was stacked for: it serves again as long as this is the same."""
    return frozenset(
        (id(row), row.guided, row.shallow, id(row.stage), row.controls) for row in rows
    )


@lru_cache(maxsize=1024)
def _packed(table: SamplerTable, depth: int) -> Tensor:
    """(K, depth * (depth + 2) + 4): coefficients, input scale, timestep, two renoise weights."""
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
