"""Weights on a FUSE mount are read, and not mapped into memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runnables.checkpoints import mounts
from runnables.checkpoints.loading import load

TABLE = r"""overlay / overlay rw 0 0
mountpoint-s3 /models/current fuse rw,nosuid 0 0
/dev/nvme1n1 /models/current/local ext4 rw 0 0
mountpoint-s3 /models/two\040words fuse.s3 rw 0 0
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
    ],
)
def test_the_innermost_mount_decides(path: str, found: bool, tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(TABLE)
    assert mounts.is_fuse(Path(path), table) is found


def test_where_no_mounts_are_told(tmp_path: Path) -> None:
    assert mounts.is_fuse(tmp_path, tmp_path / "none") is False


@pytest.mark.parametrize("fuse", [False, True])
def test_weights_are_mapped_from_other_disks_only(
    fuse: bool, tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "model"))
    monkeypatch.setattr(mounts, "is_fuse", lambda path: fuse)
    checkpoint = load(str(folder), dtype=torch.float32)
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    own = {Path(one).parent.name for one in mapped if one.startswith(str(folder))}
    assert ("unet" in own) is not fuse and ("text_encoder" in own) is not fuse
    del checkpoint
