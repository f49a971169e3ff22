"""A pipe or a folder among the files that requests name would be read for ever, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runnables.checkpoints.library import Library
from runnables.checkpoints.sources import Sources
from runnables.errors import UnknownName
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    (tmp_path / "real.safetensors").write_bytes(b"")
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    return tmp_path


def test_only_files_are_named(folder: Path) -> None:
    settings = Settings(lora_dir=str(folder), embeddings_dir=str(folder))
    runnable = StableDiffusionRunnable(settings)
    named = [{"name": "link"}, {"name": "real"}]
    assert runnable.listed("loras") == runnable.listed("embeddings") == named
    assert sorted(Sources({}, str(folder), "first")) == ["link.safetensors", "real.safetensors"]


def test_only_files_are_found(folder: Path) -> None:
    library: Library[str] = Library(
        str(folder), "*.safetensors", str, field=("lora", "SD_LORA_DIR"), budget=1
    )
    assert sorted(library.paths()) == ["link", "real"]
    with pytest.raises(UnknownName):
        library.find("pipe")


def test_a_folder_of_models_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """A file system of the network may drop: what was found before may be loaded already."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "one.safetensors").write_bytes(b"")
    sources = Sources({"named": "/there"}, str(folder), "first")
    assert list(sources) == ["one.safetensors", "named"]
    folder.rename(tmp_path / "elsewhere")
    assert list(sources) == ["one.safetensors", "named"]
    folder.mkdir()
    assert list(sources) == ["named"]
