"""The comparison of 8-bit weights runs, and its random models have the published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import quantization, random_models
from runnables.checkpoints.catalog import ARCHITECTURES
from runnables.settings import EMBEDDED_MODEL


@pytest.mark.parametrize("kind", quantization.KINDS)
def test_random_models_have_the_published_sizes(kind: str) -> None:
    with torch.device("meta"):
        parts = random_models.parts_of(kind)
    counted = {
        name: sum(tensor.numel() for tensor in part.state_dict().values())
        for name, part in parts.items()
    }
    published = ARCHITECTURES[kind].weights
    assert counted == {name: n for name, n in published.items() if name != "text_encoder_3"}


def test_half_a_model_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "model_index.json").write_text("{}")
            raise OSError("the disk is full")

    monkeypatch.setattr(random_models, "parts_of", lambda kind: {})
    monkeypatch.setattr(random_models, "pipeline_of", lambda parts: Broken())
    with pytest.raises(OSError, match="full"):
        random_models.build("sdxl", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert torch.get_default_dtype() == torch.float32


def test_the_table_of_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    task = quantization.Task(str(EMBEDDED_MODEL), "fp32", steps=1, size=64, images=1, threads=1)
    quantization.compare(["unet:int8"], task)
    *_, plain, quantized = (line.split("|") for line in capsys.readouterr().out.splitlines())
    assert float(quantized[2]) < float(plain[2])
    assert float(quantized[4]) > 20 and plain[4].strip() == "-"
    assert float(plain[6]) > 0
