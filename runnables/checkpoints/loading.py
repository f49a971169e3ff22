"""This module loads a diffusers folder, a single-file checkpoint, a catalog name, or a Hub id."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from runnables.checkpoints import catalog, hub, layout, manifest, vocabulary
from runnables.checkpoints.checkpoint import Checkpoint, profile_of
from runnables.checkpoints.components import load_component, refusal
from runnables.checkpoints.families import FAMILIES, FamilyLayout, family_of
from runnables.checkpoints.quantization import quantize
from runnables.checkpoints.single_file import DtypeOf, is_denoiser_alone, load_denoiser, load_file
from runnables.samplers.scheduler import mended

__all__ = ["Checkpoint", "load"]

logger = logging.getLogger(__name__)

HASHED_UP_TO = 64 * 2**20  # bytes of a model that are hashed at every load (20 ms for 16 MB)


def load(
    source: str,
    *,
    dtype: torch.dtype | DtypeOf,
    config: str | None = None,
    left_out: Collection[str] = (),
    quantized: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Load what SD_MODEL names.

    Args:
        dtype: the number format, or what returns it for the family, which is known while loading.
        source: a path, a name of the catalog or of a folder in models/, or `owner/name[@revision]`.
        config: for a single-file checkpoint, a diffusers folder of the same architecture.
        left_out: components that are not loaded, though the model has them.
        quantized: component -> how its weights are kept, a key of `quantization.CONFIGS`.

    Raises:
        ConfigurationError: saying what is missing, damaged or not supported.
    """
    path, kinds = Path(source).expanduser(), quantized or {}
    dtype_of = (lambda _: dtype) if isinstance(dtype, torch.dtype) else dtype
    if path.is_file() and is_denoiser_alone(path):
        around, part, module = load_denoiser(path, dtype_of, config)
        if part in kinds and path.suffix != ".gguf":
            quantize(module, kinds[part])
        return _load_folder(around, path.stem, dtype_of, left_out, kinds, ready={part: module})
    if path.is_file():
        return load_file(path, dtype_of, config, left_out, kinds)
    if folder := path if path.is_dir() else catalog.folder_of(source):
        return _load_folder(folder, folder.resolve().name, dtype_of, left_out, kinds)
    return _load_from_hub(source, dtype_of, left_out, kinds)


def _load_folder(
    folder: Path,
    name: str,
    dtype_of: DtypeOf,
    left_out: Collection[str],
    quantized: Mapping[str, str],
    defaults: Mapping[str, Any] | None = None,
    ready: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Load a folder, but for the components that are `ready`."""
    loaded = dict(ready or {})
    index = _read_json(folder / layout.INDEX, "not a diffusers model folder")
    family = _family_of(index)
    dtype = dtype_of(family)
    _check_whole(folder, index, FAMILIES[family], loaded)
    scheduler_config = _scheduler_config(folder, index)
    absent = {"scheduler", *left_out, *loaded}
    names = [name for name in layout.components(index) if name not in absent]
    parts = {  # the quantised ones first: unquantised, they take the most memory
        part: load_component(folder, index, part, dtype, quantized.get(part))
        for part in sorted(names, key=lambda part: part not in quantized)
    }
    return Checkpoint(
        name=name,
        family=family,
        components={**{part: parts[part] for part in names}, **loaded},
        scheduler_config=scheduler_config,
        profile=profile_of(family, scheduler_config, _own_profile(folder) or defaults or {}),
        config=index,
        vocabulary=vocabulary.read(folder),
    )


def _family_of(index: Mapping[str, Any]) -> str:
    try:
        return family_of(index)
    except ValueError as error:
        raise refusal(str(error)) from error


def _check_whole(
    folder: Path, index: Mapping[str, Any], family: FamilyLayout, ready: Collection[str]
) -> None:
    """Check that every component is there, and as long as its manifest or header says.

    Args:
        ready: components that are loaded already, which the folder need not have.
    """
    try:
        if absent := family.needs - layout.components(index).keys():
            raise layout.Incomplete(f"{folder / layout.INDEX} lists no {', '.join(sorted(absent))}")
        weights = list(folder.rglob("*.safetensors"))
        small = sum(path.stat().st_size for path in weights) <= HASHED_UP_TO
        if not ready and not manifest.verify(folder, hashes=small):
            logger.info("%s has no manifest: only the lengths of its weights are checked", folder)
        present = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        wanted = {part: value for part, value in index.items() if part not in ready}
        for name in layout.needed(present, wanted):
            if name.endswith(".safetensors"):
                layout.check_complete(folder / name)
    except manifest.Damaged as error:
        raise refusal(str(error)) from error
    except layout.Incomplete as error:
        raise refusal(f"{folder}: {error}") from error


def _scheduler_config(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    config = _read_json(folder / "scheduler" / "scheduler_config.json", "the model is incomplete")
    named = {"_class_name": layout.components(index)["scheduler"], **config}
    return mended(named, index["_class_name"])


def _own_profile(folder: Path) -> dict[str, Any]:
    path = folder / "profile.json"
    return _read_json(path, "") if path.is_file() else {}


def _read_json(path: Path, meaning: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise refusal(f"{path.parent} has no {path.name}: {meaning}") from error
    except ValueError as error:
        raise refusal(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise refusal(f"{path} is not a JSON object")
    return content


def _load_from_hub(
    source: str, dtype_of: DtypeOf, left_out: Collection[str], quantized: Mapping[str, str]
) -> Checkpoint:
    name, _, revision = source.partition("@")
    catalog.check_source("SD_MODEL", source)
    entry = catalog.entry_of(name)
    repository = entry.repository if entry else name
    commit = revision or (entry.revision if entry else None)
    folder = _snapshot(source, repository, commit, dtype_of)
    defaults = entry.defaults if entry else None
    return _load_folder(folder, name.split("/")[-1], dtype_of, left_out, quantized, defaults)


def _snapshot(source: str, repository: str, revision: str | None, dtype_of: DtypeOf) -> Path:
    """Return the repository's folder in the Hub's cache, fetched where the Hub is in reach."""

    def variant(index: Mapping[str, Any]) -> str:
        return "fp16" if dtype_of(_family_of(index)) == torch.float16 else ""

    try:
        return hub.fetch(hub.plan(repository, revision, variant))
    except layout.Incomplete as error:
        raise refusal(f"SD_MODEL={source}: {error}") from error
    except hub.Unreachable as error:
        if folder := hub.cached(repository, revision):
            logger.warning("%s; serving what was fetched before", error)
            return folder
        raise refusal(f"SD_MODEL={source}: {error}") from error
