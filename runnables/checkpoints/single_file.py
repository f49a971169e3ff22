"""A single-file checkpoint is one .safetensors with all weights under their original names.

Such a file has weights only. Configurations and tokenizers come from a diffusers folder of the same
architecture; in this order: the one that is named (SD_CHECKPOINT_CONFIG), one beside the file with
the file's name, the catalog's model of that kind where it is imported, and else the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from runnables.checkpoints import catalog, layout
from runnables.checkpoints.checkpoint import Checkpoint, profile_of
from runnables.checkpoints.components import load_component, refusal
from runnables.checkpoints.families import COMPONENTS, FamilyLayout, family_of, single_file_kinds
from runnables.checkpoints.quantization import quantize
from runnables.errors import ConfigurationError
from runnables.samplers.scheduler import mended


def load_file(
    path: Path,
    dtype: torch.dtype,
    config: str | None,
    left_out: Collection[str] = (),
    quantized: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Load a single-file checkpoint.

    Args:
        config: a diffusers folder of the same architecture, or None.
        left_out: components that are not loaded.
        quantized: component -> how its weights are kept, a key of `quantization.CONFIGS`.

    Raises:
        ConfigurationError: the file is damaged or of an unknown kind, or no configuration found.
    """
    kind, names = _kind(path)
    kinds = single_file_kinds()
    if kind not in kinds:
        raise refusal(f"{path} is a checkpoint of kind {kind}; supported are {', '.join(kinds)}")
    layout_of_family, class_name, known = kinds[kind]
    prefix = layout_of_family.denoiser_prefix
    if not any(name.startswith(prefix) for name in names):  # "v1" is diffusers' answer to anything
        raise refusal(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint: it has no denoiser"
        )
    folder = _folder(path, config, known)
    source = str(folder) if folder else catalog.CATALOG[known].repository
    import diffusers

    try:
        pipeline = getattr(diffusers, class_name).from_single_file(
            str(path),
            dtype=dtype,
            config=source,
            local_files_only=folder is not None,
            **_from_folder(layout_of_family, names, folder, dtype, left_out),
        )
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a foreign file makes the converter raise
        raise refusal(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint with the configuration of "
            f"{source}: {error}. Without the Hub, import {known} first, or name a diffusers folder "
            "of the same architecture in SD_CHECKPOINT_CONFIG"
        ) from error
    return _checkpoint(path, pipeline, quantized or {})


def _from_folder(
    family: FamilyLayout,
    names: Sequence[str],
    folder: Path | None,
    dtype: torch.dtype,
    left_out: Collection[str],
) -> dict[str, Any]:
    """Return the text encoders that the file lacks, from the folder with the configurations."""
    passed: dict[str, Any] = dict.fromkeys(left_out)
    for component, prefix in family.text_prefixes.items():
        if component in left_out or any(name.startswith(prefix) for name in names):
            continue
        index = json.loads((folder / layout.INDEX).read_text()) if folder else {}
        passed[component] = load_component(folder, index, component, dtype) if folder else None
    return passed


def _kind(path: Path) -> tuple[str, list[str]]:
    """Return the kind that diffusers reads from the file's header, and the names of its tensors."""
    if path.suffix != ".safetensors":
        raise refusal(
            f"{path} is not a .safetensors file; pickled checkpoints (.ckpt, .pt) can run code "
            "when they are loaded, and are not taken"
        )
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import safe_open

    try:
        layout.check_complete(path)
        with safe_open(path, framework="pt") as file:
            shapes = {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118 - the handle is no mapping
            }
        kind: str = infer_diffusers_model_type(shapes)
    except Exception as error:
        raise refusal(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint: {error}"
        ) from error
    return kind, list(shapes)


def _folder(path: Path, config: str | None, known: str) -> Path | None:
    if config:
        return Path(config)
    beside = path.with_suffix("")
    return beside if (beside / layout.INDEX).is_file() else catalog.folder_of(known)


def _checkpoint(path: Path, pipeline: Any, quantized: Mapping[str, str]) -> Checkpoint:
    names = [name for name in COMPONENTS if name != "scheduler"]
    components = {name: part for name in names if (part := getattr(pipeline, name, None))}
    for name, part in components.items():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
            if name in quantized:
                quantize(part, quantized[name])
    index = {**dict(pipeline.config), "_class_name": type(pipeline).__name__}
    scheduler = pipeline.scheduler
    named = {**dict(scheduler.config), "_class_name": type(scheduler).__name__}
    scheduler_config = mended(named, index["_class_name"])
    own = path.with_suffix(".profile.json")
    family = family_of(index)
    return Checkpoint(
        name=path.stem,
        family=family,
        components=components,
        scheduler_config=scheduler_config,
        profile=profile_of(
            family, scheduler_config, json.loads(own.read_text()) if own.is_file() else {}
        ),
        config=index,
    )
