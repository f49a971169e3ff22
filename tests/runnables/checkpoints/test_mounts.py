"""Weights on a network or FUSE mount are read, and not mapped into memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, StableDiffusionPipeline

from runnables.checkpoints import mounts
from runnables.checkpoints.loading import load
from runnables.checkpoints.single_file import load_denoiser, load_file
from runnables.errors import ConfigurationError
from tests import single_file

TABLE = r"""overlay / overlay rw 0 0
mountpoint-s3 /models/current fuse rw,nosuid 0 0
/dev/nvme1n1 /models/current/local ext4 rw 0 0
mountpoint-s3 /models/two\040words fuse.s3 rw 0 0
10.0.0.7:/ /efs nfs4 rw,vers=4.1 0 0
//server/share /share cifs rw 0 0
10.0.0.8@tcp:/fsx /fsx lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/models/current/unet", True),
        ("/models/current", True),
        ("/models/current/local/unet", False),
        ("/models/currently/unet", False),
        ("/models/two words/unet", True),
        ("/models", False),
        ("/efs/sdxl", True),
        ("/share/sdxl.safetensors", True),
        ("/fsx/sdxl", True),
    ],
)
def test_the_innermost_mount_decides(path: str, found: bool, tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(TABLE)
    assert mounts.is_slow_to_map(Path(path), table) is found


def test_where_no_mounts_are_told(tmp_path: Path) -> None:
    assert mounts.is_slow_to_map(tmp_path, tmp_path / "none") is False


@pytest.mark.parametrize("slow", [False, True])
def test_weights_are_mapped_from_other_disks_only(
    slow: bool, tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "model"))
    monkeypatch.setattr(mounts, "is_slow_to_map", lambda path: slow)
    checkpoint = load(str(folder), dtype=torch.float32)
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    own = {Path(one).parent.name for one in mapped if one.startswith(str(folder))}
    assert ("unet" in own) is not slow and ("text_encoder" in own) is not slow
    del checkpoint


@pytest.mark.parametrize("slow", [False, True])
def test_single_files_are_mapped_from_other_disks_only(
    slow: bool, tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first file the whole model is read, of the second the transformer."""
    passed: list[bool] = []

    def read(*_: object, disable_mmap: bool = False, **__: object) -> None:
        passed.append(disable_mmap)
        raise OSError("read")

    monkeypatch.setattr(mounts, "is_slow_to_map", lambda path: slow)
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", read)
    monkeypatch.setattr(FluxTransformer2DModel, "from_single_file", read)
    sd1, flux = tiny_model("sd1"), tiny_model("flux-schnell")
    path = single_file.write(
        StableDiffusionPipeline.from_pretrained(sd1), tmp_path / "a.safetensors"
    )
    with pytest.raises(ConfigurationError, match="read"):
        load_file(path, lambda family: torch.float32, str(sd1))
    with pytest.raises(ConfigurationError, match="read"):
        load_denoiser(tmp_path / "b.gguf", lambda family: torch.float32, str(flux))
    assert passed == [slow, slow]
