"""Brings a model into models/: copied or fetched aside, checked, then moved into place at once."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from models import manifest
from models.catalog import CATALOG, FOLDER, entry_of

#: what a pipeline is loaded from; other formats of the same weights are left behind
WANTED = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
NOT_WANTED = ["*.fp16.safetensors", "*.non_ema.safetensors", "*/openvino_*", "*onnx*", "*flax*"]


class ImportFailed(Exception):
    """The source cannot be imported; the message says why."""


def import_model(
    source: str, *, name: str | None = None, revision: str | None = None, into: Path = FOLDER
) -> Path:
    """Import a local diffusers folder, a catalog name, or a Hub id.

    Returns:
        The model's folder, with manifest.json and, for catalog models, profile.json.

    Raises:
        ImportFailed: the name is taken, or the source is no diffusers model, or out of reach.
    """
    entry = CATALOG.get(source)
    repository = entry.repository if entry else source
    entry = entry or entry_of(repository)
    target = into / (name or Path(source).name)
    if target.exists():
        raise ImportFailed(f"{target} exists; remove it or choose another --name")
    with tempfile.TemporaryDirectory(dir=into, prefix=".import-") as aside:
        folder = Path(aside) / "model"
        if Path(source).is_dir():
            _copy(Path(source), folder)
        else:
            _fetch(repository, revision or (entry.revision if entry else None), folder)
        if not (folder / "model_index.json").is_file():
            raise ImportFailed(f"{source} has no model_index.json: not a diffusers model")
        if entry and entry.defaults:
            (folder / "profile.json").write_text(json.dumps(entry.defaults, indent=1) + "\n")
        manifest.write(folder, source=repository, revision=revision)
        folder.rename(target)
    return target


def _copy(source: Path, folder: Path) -> None:
    files = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".py"]
    from tqdm import tqdm

    for path in tqdm(files, "copy", unit="file"):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _fetch(repository: str, revision: str | None, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repository,
            revision=revision,
            local_dir=folder,
            allow_patterns=WANTED,
            ignore_patterns=NOT_WANTED,
        )
    except Exception as error:  # the client raises a dozen kinds; all mean the same here
        raise ImportFailed(f"{repository} could not be fetched: {error}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
