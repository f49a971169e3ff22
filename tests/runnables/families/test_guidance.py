"""Guidance is diffusers' own, and each row has only its own scale and rescale."""

from __future__ import annotations

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from runnables.families.guidance import guide


def test_rows_that_differ_are_rescaled_each_for_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.3, 1.0, 5.0, 2.0]).view(-1, 1, 1, 1)
    conditional = torch.randn(4, 4, 8, 8, generator=generator) * spread
    unconditional = torch.randn(4, 4, 8, 8, generator=generator) * spread.flip(0)
    scale, rescale = torch.tensor([7.5, 3.0, 9.0, 1.5]), torch.tensor([0.7, 0.0, 0.2, 1.0])
    guided = guide(conditional, unconditional, scale, rescale)
    plain = guide(conditional, unconditional, scale)
    for row in range(4):
        with_prompt, without = conditional[row, None], unconditional[row, None]
        expected = without + float(scale[row]) * (with_prompt - without)
        assert torch.allclose(plain[row, None], expected, atol=1e-5)
        expected = rescale_noise_cfg(expected, with_prompt, guidance_rescale=float(rescale[row]))
        assert torch.allclose(guided[row, None], expected, atol=1e-5), row
