"""No step waits for a value that is read back, and none copies anything to the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from runnables.accelerators.base import Accelerator
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.engine.batch import Batch
from runnables.engine.denoise import Denoise, plan
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row, Stage
from runnables.extensions.controlnet.base import ControlNet
from runnables.extensions.controlnet.residuals import Control
from runnables.extensions.lora.extension import Loaded
from runnables.extensions.lora.layers import Factors, Lora
from runnables.families import latents
from runnables.families.base import Conditioning
from runnables.families.latent_diffusion import LatentDiffusion
from runnables.parameters import (
    ControlNetUse,
    Inpaint,
    LoraUse,
    Parameters,
    SkipLayerGuidance,
    TextToImage,
)
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Inputs, Ticket
from tests import tiny
from tests.insides import engine_of, model_of
from tests.runnables.extensions import test_flux, test_lora, test_stable_diffusion_3

Start = Callable[..., StableDiffusionRunnable]
Tiny = Callable[[str], Path]
Folders = Callable[[str], dict[str, str]]
KINDS = ("sd1", "sdxl", "sd3", "flux-dev", "z-image", "flux-2-klein-base")
LORA, NET = {"loras": (LoraUse(name="ink"),)}, {"controlnets": (ControlNetUse(name="one"),)}
SKIP = {"skip_layer_guidance": SkipLayerGuidance(layers=(0,), start=0.0, stop=1.0)}
#: what acts, by kind
EXTENDED: list[tuple[str, dict[str, Any]]] = [
    ("sd1", LORA),
    ("sd1", NET),
    ("sdxl", LORA | NET),
    ("sd3", LORA | NET),
    ("sd3", SKIP),
    ("flux-dev", LORA | NET),
]
EVERY: list[tuple[str, dict[str, Any]]] = [*((kind, {}) for kind in KINDS), *EXTENDED]


def named(value: object) -> str | None:
    return " and ".join(value) or "plain" if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def folders(tiny_model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """folders(kind) has the settings of a model with the LoRA "ink" and the ControlNet "one"."""
    root = tmp_path_factory.mktemp("extensions")

    def settings(kind: str) -> dict[str, str]:
        loras, nets = root / kind / "loras", root / kind / "nets"
        if not loras.exists():
            model = tiny_model(kind)
            loras.mkdir(parents=True)
            if kind == "flux-dev":
                test_flux.write_diffusers(loras, "ink", model, 1)
                tiny.build_flux_controlnet(nets / "one", model)
            elif kind == "sd3":
                test_stable_diffusion_3.write(loras, "ink", model)
                tiny.build_sd3_controlnet(nets / "one", model)
            else:
                test_lora.write(loras, "ink", model)
                tiny.build_controlnet(nets / "one", model)
        return {"lora_dir": str(loras), "controlnet_dir": str(nets)}

    return settings


def common(kind: str) -> dict[str, Any]:
    """Return the parameters of every request to a model of this kind."""
    unet = {"scheduler": "euler_a", "guidance_rescale": 0.5} if kind in ("sd1", "sdxl") else {}
    size = {"height": 64, "width": 64}
    scale = 0.0 if kind == "z-image" else 5.0
    return {"prompt": "x", "seed": 3, "guidance_scale": scale, **size, **unet}


#: methods that bring a value of a tensor to Python
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__array__")
CASTS = ("__bool__", "__int__", "__float__", "__index__")
#: operators that do so below Python
READING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")


class Reads(TorchDispatchMode):
    """The mode counts the reads of this thread: methods where they are called, operators below."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function.overloadpacket.__name__ in READING
        return function(*args, **kwargs or {})


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Count the reads of the thread that enters this."""
    reads, thread = Reads(), threading.get_ident()

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            reads.count += threading.get_ident() == thread
            return original(*args, **kwargs)

        return method

    with monkeypatch.context() as patch, reads:
        for name in (*READS, *CASTS):
            patch.setattr(Tensor, name, counting(getattr(Tensor, name)))
        yield reads


def test_reads_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(3)
    with counted(monkeypatch) as reads:
        _ = values + 1
        assert reads.count == 0
        for read in (bool, float, int):
            before = reads.count
            read(values[0])
            assert reads.count > before
        for method in (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.nonzero):
            before = reads.count
            method(values[0])
            assert reads.count > before


@pytest.mark.parametrize(("kind", "acting"), EVERY, ids=named)
def test_fifty_steps_read_nothing(
    start: Start,
    folders: Folders,
    photo: Image.Image,
    kind: str,
    acting: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine's own thread reads no tensor, previews and all."""
    runnable = start(kind, **(folders(kind) if acting else {}))
    counts: list[int] = []
    accelerator, previews = engine_of(runnable)._accelerator, list[int]()
    monkeypatch.setattr(accelerator, "decodes_beside", lambda family: True)  # as on a GPU
    steps = engine_of(runnable)._steps
    original = steps.step

    def step(rows: list[Row]) -> None:
        with counted(monkeypatch) as reads:
            original(rows)
        counts.append(reads.count)
        for row in rows:  # on a busy machine 50 steps may end before a preview is made
            if row.work.preview:
                row.work.preview[0].result(timeout=300)

    monkeypatch.setattr(steps, "step", step)
    parameters = TextToImage(num_inference_steps=50, **common(kind), **acting)
    controls = (photo,) * len(parameters.controlnets)
    ticket = runnable.submit(
        parameters,
        Inputs(controls=controls),
        on_step=lambda progress: previews.append(progress.previewed) if progress.preview else None,
        preview_every=2,
    )
    ticket.future.result(600)
    assert counts == [0] * 50
    assert previews and all(step % 2 == 0 for step in previews)


class NoNumbers(TorchFunctionMode):
    """The mode fails where Python numbers become a tensor on the device: that copies them there."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function in (torch.tensor, torch.as_tensor, torch.from_numpy)
        listed = function in (Tensor.__getitem__, Tensor.__setitem__) and any(
            isinstance(one, list) for one in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        assert not (made or listed), f"{function} copies numbers to the device"
        return function(*args, **kwargs or {})


class OneDevice(TorchDispatchMode):
    """The mode fails where an operator has tensors of two devices."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        every = torch.utils._pytree.tree_leaves((args, kwargs, result))
        devices = {one.device.type for one in every if isinstance(one, Tensor)}
        asked = {torch.device(one).type for one in every if isinstance(one, torch.device)}
        assert len(devices | asked) < 2, f"{function} copies between {devices | asked}"
        return result


class Meta(Accelerator):
    """This device holds no values: whatever is read from it, or mixed with it, fails."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"), torch.float32, Settings())


def _rows(model: LoadedModel, requests: list[tuple[Parameters, Inputs]]) -> list[Row]:
    """Return rows on the CPU."""
    works: list[Denoise] = [plan(model, Ticket(asked), inputs) for asked, inputs in requests]
    rows: list[Row] = []
    for work in works:
        work.read()
        rows += Preparer(8).at_once(work)
    return rows


#: what a row is made of
HOLDERS = (Row, latents.Start, Stage, Conditioning, Control, ControlNet, Loaded, Lora, Factors)


def _moved(value: Any, family: Any) -> Any:
    """Return a value, or all that it holds, on the meta device, where `family` is."""
    if isinstance(value, LatentDiffusion):
        return family
    if isinstance(value, Tensor | nn.Module):
        return value.to("meta")
    if isinstance(value, tuple | list):
        return type(value)(_moved(one, family) for one in value)
    if isinstance(value, dict):
        return {key: _moved(one, family) for key, one in value.items()}
    if isinstance(value, HOLDERS):
        for name, one in vars(value).items():
            object.__setattr__(value, name, _moved(one, family))
    return value


@pytest.mark.parametrize(("kind", "acting"), EVERY, ids=named)
def test_steps_copy_nothing_to_the_device(
    start: Start,
    tiny_model: Tiny,
    folders: Folders,
    photo: Image.Image,
    mask: Image.Image,
    kind: str,
    acting: dict[str, Any],
) -> None:
    """Mixed rows step on a device that is not the CPU, with the real denoiser."""
    given = common(kind) | {"num_inference_steps": 8}
    controls = (photo,) * len(acting.get("controlnets", ()))
    requests: list[tuple[Parameters, Inputs]] = [
        (TextToImage(**given, **acting), Inputs(controls=controls)),
        (TextToImage(**given | {"guidance_scale": 1.0}), Inputs()),
    ]
    if not kind.startswith("flux-2"):
        requests.append((Inpaint(**given, strength=0.99), Inputs(photo, mask)))
    if kind == "sd1":
        requests.append((TextToImage(**given, deep_cache_interval=3), Inputs()))
    accelerator = Meta()
    family = family_of(load(str(tiny_model(kind)), dtype=torch.float32), accelerator)
    for module in family.checkpoint.modules:
        module.to("meta")
    model = model_of(start(kind, **(folders(kind) if acting else {})))
    with torch.inference_mode():
        rows = [_moved(row, family) for row in _rows(model, requests)]
        for row in rows:
            row.step = 1  # layers are skipped from the second step on
            row.kept.clear()
        for extension in model.extensions:
            extension.family = family
        Batch(rows, accelerator).step()  # some modules make what they keep at their first call
        batch = Batch(rows, accelerator)
        with NoNumbers(), OneDevice():
            for _ in range(4):
                batch.step()
                for row, extension in product(batch.rows, model.extensions):
                    extension.preview(row, batch.output(row))
    assert all(row.step == 6 for row in rows)


def test_the_mode_sees_copies() -> None:
    there = torch.zeros(4, device="meta")
    for copy in (
        lambda: torch.ones(4).to("meta"),
        lambda: there[torch.tensor([1])],
        lambda: there[[1, 2]],
        lambda: there.copy_(torch.ones(4)),
        lambda: torch.tensor([1.0, 2.0], device="meta"),
    ):
        with NoNumbers(), OneDevice(), pytest.raises(AssertionError, match="copies"):
            copy()


def test_noise_is_that_of_draws_at_every_step(start: Start) -> None:
    """Drawn ahead, the generator gives the numbers that a draw per step gives."""
    asked = TextToImage(prompt="x", num_inference_steps=5, seed=9, scheduler="euler_a")
    (row,) = _rows(model_of(start("sd1")), [(asked, Inputs())])
    generator = torch.Generator().manual_seed(9)
    torch.randn((1, 4, 8, 8), generator=generator)  # the first latents
    for step in range(5):
        expected = torch.randn((1, 4, 8, 8), generator=generator)[0]
        row.step = step
        noise = row.next_noise()
        assert noise is not None and np.array_equal(noise.numpy(), expected.numpy())
