"""The memory planner: what fits is on the device, what does not is streamed, else it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.__main__ import main
from models.fitting import fit
from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu import device
from runnables.accelerators.placement import place
from runnables.errors import ConfigurationError
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import base_of

GB = 1e9
TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")
LARGE = {"transformer": 16.3 * GB, "text_encoder_3": 9.5 * GB, "vae": 0.2 * GB}


def test_from_all_on_the_device_to_nothing_fits() -> None:
    streamed = [place(LARGE, 2.7 * GB, free * GB).streamed for free in (40, 24, 20, 10, 6)]
    assert streamed == [
        (),
        ("text_encoder_3",),
        ("transformer",),
        ("transformer", "text_encoder_3"),
        ("transformer", "text_encoder_3"),
    ]
    with pytest.raises(ConfigurationError) as refused:
        place(LARGE, 2.7 * GB, 4 * GB)
    assert "needs 3.8 GiB, 0.4 GiB more than this device has" in refused.value.message


def test_a_plan_takes_no_more_than_there_is() -> None:
    for free in range(5, 60):
        placement = place(LARGE, 2.7 * GB, free * GB)
        assert placement.need <= placement.room < free * GB
        assert (placement.need >= placement.whole) == (not placement.streamed)


@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        ("sd-1.5", {16: "", 24: "", 48: "", 80: ""}),
        ("sdxl", {16: "", 24: "", 48: "", 80: ""}),
        ("sd-3.5-large", {16: "transformer, text", 24: "text_encoder", 48: "", 80: ""}),
        ("flux.1-dev", {16: "transformer, text", 24: "transformer in", 48: "", 80: ""}),
    ],
)
def test_known_models_on_known_cards(name: str, streamed: dict[int, str]) -> None:
    for gpu, begin in streamed.items():
        *_, decision = fit(name, gpu, "fp16")
        assert decision.startswith(begin or "all on the device"), (gpu, decision)


def test_8_bits_keep_flux_off_the_last_resort() -> None:
    *_, decision = fit("flux.1-dev", 24, "fp16", "transformer:int8")
    assert decision.startswith("text_encoder, text_encoder_2 in main memory")
    *_, decision = fit("flux.1-dev", 24, "fp16", "transformer:int8,text_encoder_2:int8")
    assert decision.startswith("all on the device")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fit", "flux.1-dev", "--gpu", "48"]) == 0
    assert "transformer       11.90 billion weights,  23.8 GB" in capsys.readouterr().out
    assert main(["fit", "flux.1-dev", "--gpu", "4"]) == 1
    assert "GiB more than this device has" in capsys.readouterr().err
    assert main(["fit", "flux.9", "--gpu", "4"]) == 1
    assert "there is no model flux.9" in capsys.readouterr().err
    assert main(["fit", "sdxl", "--gpu", "24", "--quantize", "transformer:int8"]) == 1
    assert "sdxl has no transformer; it has unet" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_streamed_components_generate_the_same_images(
    kind: str,
    start: Callable[..., StableDiffusionRunnable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here main memory is the device's, too: this shows that the hooks change no image."""

    def image(runnable: StableDiffusionRunnable) -> Any:
        wanted = TextToImage(prompt="a cat", seed=3, num_inference_steps=2, height=64, width=64)
        return np.asarray(runnable.txt2img(wanted).images[0].image).astype(int)

    expected = image(start(kind))

    def everything(self: Accelerator, family: Any) -> tuple[str, ...]:
        parts = family.checkpoint.components
        return tuple(name for name, part in parts.items() if isinstance(part, torch.nn.Module))

    monkeypatch.setattr(Accelerator, "place", everything)
    monkeypatch.setattr(device, "pack", lambda *_: None)  # it replaces the methods with the hooks
    runnable = start(kind)
    hooked = [
        part for part in base_of(runnable).checkpoint.modules if hasattr(part, "_diffusers_hook")
    ]
    assert hooked
    assert np.abs(image(runnable) - expected).max() <= 2
