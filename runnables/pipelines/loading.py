"""Loads a model: a diffusers folder, a single-file checkpoint, a catalog name, or a Hub id."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models import catalog, manifest
from runnables.errors import ConfigurationError
from runnables.parameters import Profile

logger = logging.getLogger(__name__)

FAMILIES = {
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionImg2ImgPipeline": "stable-diffusion",
    "StableDiffusionInpaintPipeline": "stable-diffusion",
    "LatentConsistencyModelPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusionXLImg2ImgPipeline": "stable-diffusion-xl",
    "StableDiffusionXLInpaintPipeline": "stable-diffusion-xl",
}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
HASHED_UP_TO = 64 * 2**20  # bytes of a model that are hashed at every load (20 ms for 16 MB)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model, on the CPU, in evaluation mode.

    Attributes:
        tokenizers, text_encoders: in the family's order (SDXL: two, its refiner: the second).
        scheduler_config: scheduler_config.json with `_class_name`.
        config: model_index.json.
    """

    name: str
    family: str
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    safety_checker: Any
    feature_extractor: Any
    profile: Profile
    config: dict[str, Any]


def load(source: str, *, dtype: torch.dtype, config: str | None = None) -> Checkpoint:
    """Load what SD_MODEL names.

    Args:
        config: for a single-file checkpoint, a diffusers folder of the same architecture from which
            configs and tokenizers are taken; without it they come from the Hub.

    Raises:
        ConfigurationError: saying what is missing, damaged or not supported.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _load_file(path, dtype, config)
    folder = path if path.is_dir() else catalog.folder_of(source) or _from_hub(source)
    return _load_folder(folder, dtype)


# -- folders ---------------------------------------------------------------------------------------


def _load_folder(folder: Path, dtype: torch.dtype) -> Checkpoint:
    _check(folder)
    index = _read_json(folder / "model_index.json")
    family = _family(index)
    options = {"dtype": dtype, "local_files_only": True}
    try:
        return Checkpoint(
            name=folder.resolve().name,
            family=family,
            tokenizers=_load_all(folder, index, ("tokenizer", "tokenizer_2"), {}),
            text_encoders=_load_all(folder, index, ("text_encoder", "text_encoder_2"), options),
            unet=_load_weights(folder, "unet", dtype),
            vae=_load_weights(folder, "vae", dtype),
            scheduler_config=_scheduler_config(folder, index),
            safety_checker=_optional(folder, index, "safety_checker", options),
            feature_extractor=_optional(folder, index, "feature_extractor", {}),
            profile=_profile(folder),
            config=index,
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder}: {error}", loc=("SD_MODEL",)) from error


def _check(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise ConfigurationError(
            f"{folder} has no model_index.json: not a diffusers model folder", loc=("SD_MODEL",)
        )
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    try:
        if not manifest.verify(folder, hashes=size <= HASHED_UP_TO):
            logger.info("%s has no manifest: it is loaded unchecked", folder)
    except manifest.Damaged as error:
        raise ConfigurationError(str(error), loc=("SD_MODEL",)) from error


def _family(index: Mapping[str, Any]) -> str:
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise ConfigurationError(
            f"{name} is not supported; supported are {', '.join(FAMILIES)}", loc=("SD_MODEL",)
        )
    refiner = index.get("requires_aesthetics_score", False)
    return FAMILIES[name] + ("-refiner" if refiner else "")


def _load_all(
    folder: Path, index: Mapping[str, Any], names: tuple[str, ...], options: dict[str, Any]
) -> tuple[Any, ...]:
    return tuple(
        component
        for name in names
        if (component := _optional(folder, index, name, options)) is not None
    )


def _optional(
    folder: Path, index: Mapping[str, Any], name: str, options: dict[str, Any]
) -> Any | None:
    """A component as model_index.json names it, or None where it lists none."""
    library, class_name = index.get(name) or (None, None)
    if class_name is None:
        return None
    if library == "stable_diffusion":
        from diffusers.pipelines.stable_diffusion import safety_checker as module
    else:
        import transformers as module
    loaded = getattr(module, class_name).from_pretrained(folder / name, **options)
    return loaded.eval().requires_grad_(False) if isinstance(loaded, torch.nn.Module) else loaded


def _load_weights(folder: Path, name: str, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name]
    variant = "fp16" if any((folder / name).glob("*.fp16.safetensors")) else None
    plain = any(path for path in (folder / name).glob("*.safetensors") if "fp16" not in path.name)
    loaded = model.from_pretrained(
        folder / name,
        dtype=dtype,
        variant=variant if dtype == torch.float16 or not plain else None,
        local_files_only=True,
    )
    return loaded.eval().requires_grad_(False)


def _scheduler_config(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    config = _read_json(folder / "scheduler" / "scheduler_config.json")
    return {"_class_name": index["scheduler"][1], **config}


def _profile(folder: Path) -> Profile:
    path = folder / "profile.json"
    return Profile(**_read_json(path)) if path.is_file() else Profile()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path} is missing", loc=("SD_MODEL",)) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}", loc=("SD_MODEL",)) from error
    return content


# -- single files ----------------------------------------------------------------------------------


def _load_file(path: Path, dtype: torch.dtype, config: str | None) -> Checkpoint:
    import diffusers
    from diffusers.loaders.single_file_utils import (
        infer_diffusers_model_type,
        load_single_file_checkpoint,
    )

    try:
        kind = infer_diffusers_model_type(load_single_file_checkpoint(str(path)))
        xl = kind.startswith("xl")
        pipeline_class = getattr(
            diffusers, "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
        )
        pipeline = pipeline_class.from_single_file(
            str(path), dtype=dtype, config=config, local_files_only=config is not None
        )
    except Exception as error:  # whatever a foreign file makes the converter raise
        raise ConfigurationError(
            f"{path} cannot be loaded as a Stable Diffusion checkpoint: {error}. Without the Hub, "
            "SD_CHECKPOINT_CONFIG must name a diffusers folder of the same architecture",
            loc=("SD_MODEL",),
        ) from error
    return _from_pipeline(path.stem, pipeline)


def _from_pipeline(name: str, pipeline: Any) -> Checkpoint:
    def parts(*names: str) -> tuple[Any, ...]:
        return tuple(part for n in names if (part := getattr(pipeline, n, None)) is not None)

    for module in (pipeline.unet, pipeline.vae, *parts("text_encoder", "text_encoder_2")):
        module.eval().requires_grad_(False)
    index = {"_class_name": type(pipeline).__name__, **dict(pipeline.config)}
    return Checkpoint(
        name=name,
        family=_family(index),
        tokenizers=parts("tokenizer", "tokenizer_2"),
        text_encoders=parts("text_encoder", "text_encoder_2"),
        unet=pipeline.unet,
        vae=pipeline.vae,
        scheduler_config={
            **dict(pipeline.scheduler.config),
            "_class_name": type(pipeline.scheduler).__name__,
        },
        safety_checker=getattr(pipeline, "safety_checker", None),
        feature_extractor=getattr(pipeline, "feature_extractor", None),
        profile=Profile(),
        config=index,
    )


# -- the Hub ---------------------------------------------------------------------------------------


def _from_hub(source: str) -> Path:
    """The Hub's snapshot folder of `owner/name[@revision]`, or of a catalog name."""
    from models.importing import NOT_WANTED, WANTED

    entry = catalog.CATALOG.get(source)
    if not entry and not HUB_ID.fullmatch(source):
        raise ConfigurationError(
            f"SD_MODEL={source}: no such folder or file, nor a Hub id (owner/name), nor in the "
            f"catalog ({', '.join(catalog.CATALOG)})",
            loc=("SD_MODEL",),
        )
    repository, _, revision = (entry.repository if entry else source).partition("@")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=WANTED,
                ignore_patterns=NOT_WANTED,
            )
        )
    except Exception as error:  # no network, no such repository, no permission
        raise ConfigurationError(
            f"SD_MODEL={source} could not be fetched from the Hub: {error}", loc=("SD_MODEL",)
        ) from error
