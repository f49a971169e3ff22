"""No step waits for a value that is read back, and none copies anything to the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from runnables.accelerators.base import Accelerator
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.engine.batch import Batch
from runnables.engine.denoise import Denoise, plan
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.parameters import Inpaint, Parameters, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Inputs, Ticket
from tests.insides import engine_of, model_of

Start = Callable[..., StableDiffusionRunnable]
Tiny = Callable[[str], Path]

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


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3"])
def test_fifty_steps_read_nothing(start: Start, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own thread reads no tensor from the first step to the last but one."""
    runnable = start(kind)
    ancestral = {} if kind == "sd3" else {"scheduler": "euler_a", "guidance_rescale": 0.5}
    counts: list[int] = []
    steps = engine_of(runnable)._steps
    original = steps.step

    def step(rows: list[Row]) -> None:
        with counted(monkeypatch) as reads:
            original(rows)
        counts.append(reads.count)

    monkeypatch.setattr(steps, "step", step)
    parameters: dict[str, Any] = {"prompt": "x", "seed": 3, "guidance_scale": 5.0, **ancestral}
    runnable.txt2img(TextToImage(num_inference_steps=50, **parameters))
    assert counts[:49] == [0] * 49, "the last one decodes the image"


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


def _moved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return {key: _moved(one) for key, one in value.items()} if isinstance(value, dict) else value


def _move(part: Any) -> None:
    for name, value in vars(part).items():
        object.__setattr__(part, name, _moved(value))


def _to_meta(row: Row, family: Any) -> Row:
    """Move all that a row holds to the meta device, where its model is."""
    _move(row)
    _move(row.start)
    for stage in row._stages:
        object.__setattr__(stage, "family", family)
        for conditioning in filter(None, (stage.positive, stage.negative)):
            _move(conditioning)
    return row


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3"])
def test_steps_copy_nothing_to_the_device(start: Start, tiny_model: Tiny, kind: str) -> None:
    """Mixed rows step on a device that is not the CPU, with the real denoiser."""
    ancestral = {} if kind == "sd3" else {"scheduler": "euler_a", "guidance_rescale": 0.5}
    common: dict[str, Any] = {"prompt": "x", "num_inference_steps": 6, "seed": 1}
    picture, mask = Image.new("RGB", (64, 64)), Image.new("L", (64, 64), 255)
    requests: list[tuple[Parameters, Inputs]] = [
        (TextToImage(**common, **ancestral), Inputs()),
        (TextToImage(**common, guidance_scale=1.0), Inputs()),
        (Inpaint(**common, strength=0.99), Inputs(picture, mask)),
    ]
    if kind == "sd1":
        requests.append((TextToImage(**common, deep_cache_interval=3), Inputs()))
    accelerator = Meta()
    family = family_of(load(str(tiny_model(kind)), dtype=torch.float32), accelerator)
    for module in family.checkpoint.modules:
        module.to("meta")
    with torch.inference_mode():
        rows = _rows(model_of(start(kind)), requests)
        rows = [_to_meta(row, family) for row in rows]
        for row in rows:
            for extension, _ in row.stage.active:
                extension.family = family
        batch = Batch(rows, accelerator)
        with NoNumbers(), OneDevice():
            for _ in range(4):
                batch.step()
    assert all(row.step == 4 for row in rows)


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
        assert np.array_equal(row.noise[step].numpy(), expected.numpy())
