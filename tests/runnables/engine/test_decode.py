"""What becomes of images that are not numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runnables.engine.decode import _checked, decode_call


@pytest.mark.parametrize(
    ("dtype", "ending"),
    [
        (torch.float16, "a lower guidance_scale, or SD_PRECISION=bf16 or fp32"),
        (torch.bfloat16, "a lower guidance_scale, or SD_PRECISION=fp32"),
        (torch.float32, "a lower guidance_scale"),
    ],
)
def test_the_message_names_the_formats_that_may_help(dtype: torch.dtype, ending: str) -> None:
    error = _checked(torch.full((3, 8, 8), torch.nan), dtype)
    assert isinstance(error, Exception) and str(error).endswith(ending)


class Overflowing:
    """The part of a family that decodes: its VAE overflows, but for float32."""

    dtype = torch.float16

    def finished(self, latents: torch.Tensor, *, inpainted: bool) -> torch.Tensor:
        return latents

    def to_pixels(self, latents: torch.Tensor, *, fp32: bool = False) -> torch.Tensor:
        return torch.full((len(latents), 3, 8, 8), 1.0 if fp32 else torch.inf)


def test_a_vae_that_overflows_is_asked_again_in_float32() -> None:
    stage, start = SimpleNamespace(family=Overflowing()), SimpleNamespace(inpaints=False)
    rows: Any = [SimpleNamespace(stage=stage, start=start, latents=torch.zeros(4, 1, 1))]
    (pixels,) = decode_call(rows)
    assert isinstance(pixels, torch.Tensor) and int(pixels.min()) == 255
    with pytest.raises(OverflowError):
        decode_call(rows, again=False)
