"""SDXL's published VAE overflows in fp16, as its config says: it is kept in fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.packed import pack
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.settings import Settings

TinyModel = Callable[[str], Path]
HALF = torch.float16


def half(folder: Path, *, overflows: bool) -> Any:
    """Return a model in fp16, whose VAE leaves the range of fp16 on its way in both directions."""
    checkpoint = load(str(folder), dtype=HALF)
    checkpoint.vae.register_to_config(force_upcast=overflows)
    with torch.no_grad():
        for coder in (checkpoint.vae.encoder, checkpoint.vae.decoder) if overflows else ():
            coder.conv_in.weight.fill_(3e4)
    return family_of(checkpoint, Accelerator(torch.device("cpu"), HALF, Settings()))


def test_a_vae_that_overflows_is_kept_in_fp32(tiny_model: TinyModel) -> None:
    family = half(tiny_model("sdxl"), overflows=True)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    with torch.inference_mode():
        latents = family.to_latents(pixels, generator)
        decoded = family.to_pixels(torch.randn(1, 4, 8, 8, generator=generator))
    assert latents.dtype == HALF and latents.isfinite().all()
    assert decoded.isfinite().all()
    assert family.unet.dtype == HALF


@pytest.mark.parametrize("kind", ["sdxl", "sd1"])
def test_others_stay_in_half_precision(tiny_model: TinyModel, kind: str) -> None:
    """The config of a VAE that was mended for fp16 says so; Stable Diffusion 1's never mattered."""
    family = half(tiny_model(kind), overflows=False)
    assert family.vae.dtype == HALF


def test_the_config_counts_for_sdxl_alone(tiny_model: TinyModel) -> None:
    """It is true by default, and diffusers' other pipelines do not look at it."""
    assert half(tiny_model("sd1"), overflows=True).vae.dtype == HALF


def test_a_streamed_vae_decodes_in_fp32(tiny_model: TinyModel) -> None:
    """Its layers' weights are brought from copies in half precision at every call."""
    family, whole = half(tiny_model("sd1"), overflows=True), half(tiny_model("sd1"), overflows=True)
    for layer in family.vae.modules():
        kept = {name: weight.data for name, weight in layer.named_parameters(recurse=False)}

        def bring(layer: nn.Module, _: Any, kept: dict[str, torch.Tensor] = kept) -> None:
            for name, weight in layer.named_parameters(recurse=False):
                weight.data = kept[name]

        layer.register_forward_pre_hook(bring)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert not family.to_pixels(latents).isfinite().all()
        decoded = family.to_pixels(latents, fp32=True)
        assert decoded.isfinite().all()
        torch.testing.assert_close(decoded, _reference(whole, latents))
    assert family.vae.dtype == HALF, "as it was"


def _reference(family: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return what the same VAE decodes, all of it in fp32."""
    family.vae.to(torch.float32)
    return family.to_pixels(latents)


def test_a_packed_vae_decodes_in_fp32(tiny_model: TinyModel) -> None:
    family = family_of(load(str(tiny_model("sd1")), dtype=torch.float32), Cpu(Settings()))
    pack(family.vae)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = family.to_pixels(latents)
        assert any(weight.is_mkldnn for weight in family.vae.parameters())
        torch.testing.assert_close(family.to_pixels(latents, fp32=True), expected)
