"""A single-file checkpoint is one .safetensors with all weights under their original names.

Such a file has weights only. Configurations and tokenizers come from a diffusers folder of the same
architecture; in this order: the one that is named (SD_CHECKPOINT_CONFIG), one beside the file with
the file's name, the catalog's model of that kind where it is imported, and else the Hub.

Of kinds without a pipeline class in `FAMILIES`, and of every GGUF file, only the transformer is
read; all else comes from that folder. GGUF weights stay as they are, and are brought to the model's
number format in each call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from runnables.checkpoints import catalog, layout, mounts
from runnables.checkpoints.checkpoint import Checkpoint, profile_of
from runnables.checkpoints.components import class_of, foreign, load_component, refusal
from runnables.checkpoints.families import (
    COMPONENTS,
    FAMILIES,
    FamilyLayout,
    family_of,
    name_of,
    single_file_kinds,
)
from runnables.checkpoints.quantization import gguf_shapes, quantize
from runnables.samplers.scheduler import mended

DtypeOf = Callable[[str], torch.dtype]  # the number format of a family's models

GGUF = ".gguf"
#: tensors and metadata that mark what a Stable Diffusion file predicts: the WebUI and ComfyUI read
#: the tensors, `modelspec` is Stability AI's standard, and `ss_` is what kohya's scripts write
V_TENSOR, ZERO_SNR_TENSOR, EDM_TENSOR = "v_pred", "ztsnr", "edm_vpred.sigma_max"
MODELSPEC, V_METADATA = "modelspec.prediction_type", "ss_v_parameterization"
ZERO_SNR_METADATA = "ss_zero_terminal_snr"
PREDICTIONS = {
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "epsilon": "epsilon",
}


def load_file(
    path: Path,
    dtype_of: DtypeOf,
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
    names, layout_of_family, class_name, known = _described(path)
    dtype = dtype_of(name_of(layout_of_family))
    folder = _folder(path, config, known)
    source = str(folder) if folder else catalog.CATALOG[known].repository
    import diffusers

    with foreign(
        f"{path} cannot be loaded as a Stable Diffusion checkpoint with the configuration of "
        f"{source}",
        f". Without the Hub, import {known} first, or name a diffusers folder of the same "
        "architecture in SD_CHECKPOINT_CONFIG",
    ):
        pipeline = getattr(diffusers, class_name).from_single_file(
            str(path),
            dtype=dtype,
            config=source,
            local_files_only=folder is not None,
            **mounts.reading(path),
            **_from_folder(layout_of_family, names, folder, dtype, left_out),
        )
    return _checkpoint(path, pipeline, quantized or {}, _marks(path, names))


def is_denoiser_alone(path: Path) -> bool:
    """Return whether only the denoiser is read from a file.

    Raises:
        ConfigurationError: the file is damaged or of an unknown kind.
    """
    return path.suffix == GGUF or not _described(path)[2]


def load_denoiser(
    path: Path, dtype_of: DtypeOf, config: str | None
) -> tuple[Path, str, torch.nn.Module]:
    """Load the denoiser that a file has.

    Args:
        config: a diffusers folder of the same architecture, or None.

    Returns:
        The folder that everything else comes from, the denoiser's name there, and the denoiser.

    Raises:
        ConfigurationError: the file is damaged, or no such folder is found.
    """
    folder: Path | None
    if path.suffix == GGUF and config:  # its names may be those of any program that writes such
        family, known, folder = _family_around(Path(config)), "", Path(config)
    else:
        _, family, _, known = _described(path)
        folder = _folder(path, config, known)
    if folder is None or not (folder / layout.INDEX).is_file():
        raise refusal(
            f"{path} has a {family.denoiser} alone: import {known} first, or name a diffusers "
            "folder of the same architecture in SD_CHECKPOINT_CONFIG"
        )
    index = json.loads((folder / layout.INDEX).read_text())
    dtype = dtype_of(name_of(family))
    kind = class_of(family.denoiser, layout.components(index)[family.denoiser])
    with foreign(f"{path} cannot be loaded with the configuration of {folder}"):
        options = {"quantization_config": _gguf(dtype)} if path.suffix == GGUF else {}
        module: torch.nn.Module = kind.from_single_file(
            str(path),
            config=str(folder),
            subfolder=family.denoiser,
            torch_dtype=dtype,
            local_files_only=True,
            **mounts.reading(path),
            **options,
        )
    if lacking := [name for name, weight in module.named_parameters() if weight.is_meta]:
        raise refusal(f"{path} lacks {len(lacking)} weights, the first is {lacking[0]}")
    return folder, family.denoiser, module.eval().requires_grad_(False)


def _family_around(folder: Path) -> FamilyLayout:
    try:
        family = FAMILIES[family_of(json.loads((folder / layout.INDEX).read_text()))]
    except (OSError, ValueError) as error:
        raise refusal(f"SD_CHECKPOINT_CONFIG={folder}: {error}") from error
    _check_gguf(folder, family)
    return family


def _check_gguf(path: Path, family: FamilyLayout) -> None:
    if family.denoiser != "transformer":
        raise refusal(f"{path}: of GGUF files, those with a transformer are read")


def _gguf(dtype: torch.dtype) -> Any:
    from diffusers import GGUFQuantizationConfig

    return GGUFQuantizationConfig(compute_dtype=dtype)


def _described(path: Path) -> tuple[list[str], FamilyLayout, str, str]:
    """Return a file's names, its family, the class that reads it, and a model of its kind."""
    kind, names = _kind(path)
    kinds = single_file_kinds()
    if kind not in kinds:
        raise refusal(f"{path} is a checkpoint of kind {kind}; supported are {', '.join(kinds)}")
    family, class_name, known = kinds[kind]
    if path.suffix == GGUF:
        _check_gguf(path, family)
    elif not any(family.denoiser_prefix in name for name in names):
        raise refusal(  # "v1" is diffusers' answer to anything
            f"{path} cannot be loaded as a Stable Diffusion checkpoint: it has no denoiser"
        )
    return names, family, class_name, known


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
    if path.suffix not in (".safetensors", GGUF):
        raise refusal(
            f"{path} is not a .safetensors or .gguf file; pickled checkpoints (.ckpt, .pt) can run "
            "code when they are loaded, and are not taken"
        )
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    with foreign(f"{path} cannot be loaded as a Stable Diffusion checkpoint"):
        read = gguf_shapes if path.suffix == GGUF else _shapes
        shapes = {name: torch.empty(shape, device="meta") for name, shape in read(path).items()}
        kind: str = infer_diffusers_model_type(shapes)
    return kind, list(shapes)


def _shapes(path: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    layout.check_complete(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def _folder(path: Path, config: str | None, known: str) -> Path | None:
    if config:
        return Path(config)
    beside = path.with_suffix("")
    return beside if (beside / layout.INDEX).is_file() else catalog.folder_of(known)


def _marks(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the settings of a scheduler that a file itself marks; they win over the folder's."""
    from safetensors import safe_open

    if EDM_TENSOR in names:
        raise refusal(f"{path} is a checkpoint of the EDM kind, which is not supported")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    is_v = V_TENSOR in names or metadata.get(V_METADATA) == "True"
    prediction = PREDICTIONS.get(metadata.get(MODELSPEC, "v" if is_v else ""))
    found: dict[str, Any] = {"prediction_type": prediction} if prediction else {}
    if ZERO_SNR_TENSOR in names or metadata.get(ZERO_SNR_METADATA) == "True":
        found["rescale_betas_zero_snr"] = True
    return found


def _checkpoint(
    path: Path, pipeline: Any, quantized: Mapping[str, str], marks: Mapping[str, Any]
) -> Checkpoint:
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
    if "prediction_type" in named:  # flow matching has no other kinds
        unset = [name for name in named.get("_use_default_values", ()) if name not in marks]
        named |= {**marks, "_use_default_values": unset}
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
