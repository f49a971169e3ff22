"""What becomes of images that are not numbers."""

from __future__ import annotations

import pytest
import torch

from runnables.engine.decode import _checked


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
