"""SD_PRECISION=auto is the number format that a model's family was published in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runnables.accelerators.base import Accelerator
from runnables.accelerators.precision import dtype_of
from runnables.assembly import family_of
from runnables.errors import ConfigurationError
from runnables.settings import Settings

EVERY = {"fp16", "bf16"}


@pytest.mark.parametrize(
    ("family", "ampere", "turing"),
    [
        ("stable-diffusion", torch.float16, torch.float16),
        ("stable-diffusion-xl", torch.float16, torch.float16),
        ("stable-diffusion-3", torch.float16, torch.float16),
        ("flux", torch.bfloat16, torch.float16),
        ("z-image", torch.bfloat16, torch.bfloat16),
        ("flux-2-klein", torch.bfloat16, torch.float16),
    ],
)
def test_auto_goes_by_family_and_device(
    family: str, ampere: torch.dtype, turing: torch.dtype
) -> None:
    assert dtype_of("auto", family, EVERY) == ampere
    assert dtype_of("auto", family, {"fp16"}) == turing


def test_a_setting_comes_first() -> None:
    for family in ("stable-diffusion-xl", "flux", "z-image"):
        assert dtype_of("bf16", family, {"fp16"}) == torch.bfloat16
        assert dtype_of("fp32", family, EVERY) == torch.float32
    assert dtype_of("fp16", "flux", EVERY) == torch.float16


def test_a_format_that_the_family_overflows_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"z-image .* fp16.*bf16") as refused:
        dtype_of("fp16", "z-image", EVERY)
    assert refused.value.loc == ("SD_PRECISION",)


class ByFamily(Accelerator):
    """This device chooses by family, as a GPU does."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), torch.float16, Settings())

    def dtype_of(self, family: str) -> torch.dtype:
        return dtype_of("auto", family, EVERY)


@pytest.mark.parametrize(("kind", "dtype"), [("z-image", torch.bfloat16), ("sd1", torch.float16)])
def test_a_model_is_loaded_in_its_familys_format(
    tiny_model: Callable[[str], Path], kind: str, dtype: torch.dtype
) -> None:
    accelerator = ByFamily()
    checkpoint = accelerator.load(str(tiny_model(kind)), None)
    assert {module.dtype for module in checkpoint.modules} == {dtype}
    assert family_of(checkpoint, accelerator).dtype == dtype
