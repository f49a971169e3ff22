"""The memory planner: what fits is on the device, what does not is streamed, else it is refused."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel
from PIL import Image

from models.__main__ import main
from models.fitting import fit
from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu import device
from runnables.accelerators.placement import place
from runnables.errors import ConfigurationError
from runnables.parameters import ControlNetUse, LoraUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL
from runnables.ticket import NOTHING, Inputs
from tests.insides import base_of
from tests.runnables.checkpoints.test_flux_files import write_gguf
from tests.runnables.engine.test_watch import until
from tests.runnables.extensions import test_flux, test_lora

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
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


def test_a_vae_that_is_kept_in_fp32_is_counted_so() -> None:
    """SDXL's published one is, where the model is in fp16."""
    for precision, vae, working in (("fp16", "0.3 GB", "5.4 GB"), ("bf16", "0.2 GB", "2.7 GB")):
        lines = {line.split()[0]: line for line in fit("sdxl", 24, precision)}
        assert lines["vae"].endswith(vae) and working in lines["at"]


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


def test_a_folder_whose_vae_has_no_weights_that_are_known(tmp_path: Path) -> None:
    weights = shutil.ignore_patterns("diffusion_pytorch_model.safetensors")
    shutil.copytree(Path(EMBEDDED_MODEL) / "vae", tmp_path / "m/vae", ignore=weights)
    shutil.copytree(Path(EMBEDDED_MODEL) / "unet", tmp_path / "m/unet")
    assert main(["fit", str(tmp_path / "m"), "--gpu", "48"]) == 0


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have every component of the models that are started from now on streamed.

    Here main memory is the device's, too: the tests show that the hooks change no image.
    """

    def everything(self: Accelerator, family: Any) -> tuple[str, ...]:
        parts = family.checkpoint.components
        return tuple(name for name, part in parts.items() if isinstance(part, torch.nn.Module))

    def begin() -> None:
        monkeypatch.setattr(Accelerator, "place", everything)
        monkeypatch.setattr(device, "pack", lambda *_: None)  # it replaces methods with the hooks

    return begin


def image(runnable: StableDiffusionRunnable, inputs: Inputs = NOTHING, **options: Any) -> Any:
    size = {"num_inference_steps": 2, "height": 64, "width": 64}
    wanted = TextToImage(prompt="a cat", seed=3, **size, **options)
    ticket = runnable.submit(wanted, inputs)
    return np.asarray(ticket.future.result(timeout=300).images[0].image).astype(int)


def is_streamed(runnable: StableDiffusionRunnable) -> bool:
    """Return whether every component is."""
    parts = base_of(runnable).checkpoint.modules
    return all(any(hasattr(m, "_diffusers_hook") for m in part.modules()) for part in parts)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sd1", {}),
        ("sdxl", {}),
        ("sd3", {}),
        ("flux-dev", {}),
        ("z-image", {}),
        ("flux-2-klein", {}),
        ("sdxl", {"quantize": "unet:int8,text_encoder:int8"}),
        ("sd3", {"quantize": "transformer:int8,text_encoder_3:int8"}),
        ("flux-dev", {"quantize": "transformer:fp8"}),
    ],
)
def test_streamed_components_generate_the_same_images(
    kind: str,
    settings: dict[str, str],
    start: Start,
    tiny_model: TinyModel,
    streamed: Callable[[], None],
) -> None:
    if kind in ("flux-dev", "z-image", "flux-2-klein"):
        small(tiny_model(kind))
    expected = image(start(kind, **settings))
    streamed()
    runnable = start(kind, **settings)
    assert is_streamed(runnable)
    assert np.abs(image(runnable) - expected).max() <= 2


def small(folder: Path) -> None:
    """Have the warm-up generate small images."""
    (folder / "profile.json").write_text('{"height": 64, "width": 64}')


@pytest.mark.parametrize("kind", ["sd1", "flux-dev"])
def test_loras_act_in_streamed_components(
    kind: str, start: Start, tiny_model: TinyModel, tmp_path: Path, streamed: Callable[[], None]
) -> None:
    if kind == "sd1":
        test_lora.write(tmp_path, "one", tiny_model(kind))
    else:
        small(tiny_model(kind))
        test_flux.write_kohya(tmp_path, "one")
    uses = {"loras": (LoraUse(name="one", weight=0.8),)}
    resident = start(kind, lora_dir=str(tmp_path))
    with_one, without = image(resident, **uses), image(resident)
    assert np.abs(with_one - without).max() > 2
    streamed()
    runnable = start(kind, lora_dir=str(tmp_path))
    assert is_streamed(runnable)
    assert np.abs(image(runnable, **uses) - with_one).max() <= 2
    assert np.abs(image(runnable) - without).max() <= 2


def test_controlnets_act_on_streamed_components(
    start: Start, controlnets: TinyModel, photo: Image.Image, streamed: Callable[[], None]
) -> None:
    settings = {"controlnet_dir": str(controlnets("sdxl"))}
    inputs, uses = Inputs(controls=(photo,)), {"controlnets": (ControlNetUse(name="one"),)}
    expected = image(start("sdxl", **settings), inputs, **uses)
    streamed()
    runnable = start("sdxl", **settings)
    assert is_streamed(runnable)
    assert np.abs(image(runnable, inputs, **uses) - expected).max() <= 2
    assert np.abs(image(runnable) - expected).max() > 2


def test_gguf_weights_are_streamed(
    start: Start, tiny_model: TinyModel, tmp_path: Path, streamed: Callable[[], None]
) -> None:
    folder, path = tiny_model("sd3"), tmp_path / "mine.gguf"
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    write_gguf(transformer.state_dict(), path)
    settings = {"model": str(path), "checkpoint_config": str(folder)}
    expected = image(start("sd3", **settings))
    streamed()
    runnable = start("sd3", **settings)
    assert is_streamed(runnable)
    assert np.abs(image(runnable) - expected).max() <= 2


@pytest.mark.parametrize("settings", [{}, {"quantize": "transformer:int8"}])
def test_a_streamed_model_is_unloaded_and_comes_back(
    settings: dict[str, str], start: Start, streamed: Callable[[], None]
) -> None:
    streamed()
    runnable = start("sd3", **settings)
    before, gone = image(runnable), weakref.ref(base_of(runnable).denoiser)
    for _ in range(2):
        runnable.change_model("sd3", load=False)
        # the engine's thread may still be on its way out of what it generated last
        assert until(lambda gone=gone: gc.collect() >= 0 and gone() is None)  # type: ignore[misc]
        runnable.change_model("sd3", load=True)
        gone = weakref.ref(base_of(runnable).denoiser)
        assert is_streamed(runnable)
        assert (image(runnable) == before).all()
