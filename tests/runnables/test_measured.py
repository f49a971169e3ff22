"""What a start has measured makes the next one shorter, where nothing has changed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runnables import assembly
from runnables.measured import Kept, Measured
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import engine_of, model_of

Start = Callable[..., StableDiffusionRunnable]
WANTED = TextToImage(prompt="a cat", num_inference_steps=2, seed=1)


class Unmeasured(Exception):
    """The warm-up measures, although it need not."""


def test_the_next_start_takes_what_was_measured(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start("sd1", measured_dir=str(tmp_path))
    expected = first.txt2img(WANTED).images[0].image
    first.close()
    (file,) = tmp_path.iterdir()
    known = json.loads(file.read_text())
    assert known == Measured.of(model_of(first)).model_dump(), "with what the steps have taught"

    def warm_up(*_: Any) -> None:
        raise Unmeasured

    monkeypatch.setattr(assembly, "warm_up", warm_up)
    second = start("sd1", measured_dir=str(tmp_path))
    assert Measured.of(model_of(second)).model_dump() == known
    assert 0 < model_of(second).memory.budget < float("inf")
    assert model_of(second).cost.doubt > 1, "until steps confirm it on the machine as it is now"
    assert second.txt2img(WANTED).images[0].image == expected
    with pytest.raises(Unmeasured):  # other rows of a step are other measurements
        start("sd1", measured_dir=str(tmp_path), max_batch=2)
    file.write_text(file.read_text().replace(":", ":-", 1))
    with pytest.raises(Unmeasured):
        start("sd1", measured_dir=str(tmp_path))


@pytest.fixture(scope="module")
def plain(start: Start) -> StableDiffusionRunnable:
    return start("sd1")


@pytest.mark.parametrize("change", ["device", "cores", "processor", "versions", "dtype", "weights"])
def test_something_else_is_measured_anew(
    plain: StableDiffusionRunnable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model, accelerator = model_of(plain), engine_of(plain)._accelerator
    kept = Kept(str(tmp_path), accelerator)
    kept.write(model)
    assert kept.read(model) == Measured.of(model)
    if change == "device":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    if change == "cores":
        monkeypatch.setattr("runnables.measured.usable_cores", lambda: 640)
    if change == "processor":
        monkeypatch.setattr("runnables.measured.processor", lambda: "another")
    if change == "versions":
        monkeypatch.setattr("runnables.measured.versions", lambda: {"torch": "0"})
    if change == "dtype":
        monkeypatch.setattr(model.base, "dtype", torch.bfloat16)
    if change == "weights":
        monkeypatch.setattr(type(model.base.checkpoint), "sizes", {"unet": 1})
    assert kept.read(model) is None


def test_a_folder_that_cannot_be_written_is_no_failure(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runnable = start("sd1", measured_dir=str(tmp_path / "file" / "below"))
    assert runnable.txt2img(WANTED).images


@pytest.mark.parametrize("compile", ["off", "regional"])
def test_compiled_code_is_kept_beside_it(
    plain: StableDiffusionRunnable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile: str
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    accelerator = engine_of(plain)._accelerator
    settings = accelerator.settings.model_copy(update={"compile": compile})
    monkeypatch.setattr(accelerator, "settings", settings)
    kept = Kept(str(tmp_path), accelerator)
    kept.keep_compiled()
    folders = [str(folder) for folder in tmp_path.iterdir()]
    if compile == "off":
        assert not folders and "TORCHINDUCTOR_CACHE_DIR" not in os.environ
        return
    assert folders == [os.environ["TORCHINDUCTOR_CACHE_DIR"]]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/operators")
    kept.keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/operators"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "file").touch()
    Kept(str(tmp_path / "file"), accelerator).keep_compiled()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ, "which is the same as none"

    def refused(**_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)  # root may write everywhere
    kept.keep_compiled()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ, "PyTorch could not lock its files there"
