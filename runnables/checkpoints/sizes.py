"""The numbers of weights of known architectures; `python -m models fit` plans with them.

The numbers are those of the published configs, buffers that are stored included;
tests/runnables/checkpoints/test_sizes.py builds the large components without memory and counts.
This module imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: of each component that several architectures share
_CLIP_L = 123_060_480
_CLIP_L_PROJECTED = 123_650_304
_CLIP_H = 340_387_840  # 23 of its layers, as Stable Diffusion 2 has it
_CLIP_G = 694_659_840
_T5_XXL = 4_762_310_656
_VAE = 83_653_863
_VAE_16 = 83_819_683  # 16 latent channels
_QWEN3_4B = 4_022_468_096


@dataclass(frozen=True)
class Architecture:
    """An architecture is what models of one kind have in common.

    Attributes:
        weights: component -> how many.
        side: pixels along a side of the native size.
        wide_vae: whether its VAE overflows in fp16, and is kept in fp32 there.
    """

    weights: Mapping[str, int]
    side: int
    wide_vae: bool = False


def _sd3(transformer: int) -> Architecture:
    clip = {"text_encoder": _CLIP_L_PROJECTED, "text_encoder_2": _CLIP_G}
    others = {**clip, "text_encoder_3": _T5_XXL, "vae": _VAE_16}
    return Architecture({"transformer": transformer, **others}, 1024)


def _flux(transformer: int) -> Architecture:
    others = {"text_encoder": _CLIP_L, "text_encoder_2": _T5_XXL, "vae": _VAE_16}
    return Architecture({"transformer": transformer, **others}, 1024)


ARCHITECTURES: dict[str, Architecture] = {
    "sd-1": Architecture(
        {
            "unet": 859_520_964,
            "text_encoder": _CLIP_L,
            "vae": _VAE,
            "safety_checker": 303_981_588,
        },
        512,
    ),
    "sd-2": Architecture({"unet": 865_910_724, "text_encoder": _CLIP_H, "vae": _VAE}, 768),
    "sdxl": Architecture(
        {
            "unet": 2_567_463_684,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "vae": _VAE,
        },
        1024,
        wide_vae=True,
    ),
    "sdxl-refiner": Architecture(
        {"unet": 2_259_526_660, "text_encoder_2": _CLIP_G, "vae": _VAE},
        1024,
        wide_vae=True,
    ),
    "sd-3-medium": _sd3(2_028_328_000 + 192**2 * 1536),
    "sd-3.5-medium": _sd3(2_243_171_520 + 384**2 * 1536),
    "sd-3.5-large": _sd3(8_056_627_520 + 192**2 * 2432),
    "flux.1-dev": _flux(11_901_408_320),
    "flux.1-schnell": _flux(11_891_178_560),
    "z-image": Architecture(
        {"transformer": 6_154_908_736, "text_encoder": _QWEN3_4B, "vae": _VAE_16}, 1024
    ),
    "flux.2-klein-4b": Architecture(
        {"transformer": 3_875_544_576, "text_encoder": _QWEN3_4B, "vae": 84_046_372}, 1024
    ),
}


def of_folder(folder: Path) -> Architecture:
    """Return what a diffusers folder has, by its configs and its files' headers.

    Weights that lie there in several forms (variants) count once.
    """
    found: dict[str, dict[tuple[str, str], int]] = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        form = PurePosixPath(path.name).name.split("-0")[0]
        for name, count in _header(path):
            found.setdefault(path.parent.name, {})[form, name] = count
    weights = {component: _largest(counts) for component, counts in found.items()}
    return Architecture(weights, 1024, _has_wide_vae(folder))


def _has_wide_vae(folder: Path) -> bool:
    """Return whether this is an SDXL model whose VAE was not mended for fp16."""
    index, config = folder / "model_index.json", folder / "vae" / "config.json"
    if not index.is_file() or not config.is_file():
        return False
    xl = "XL" in json.loads(index.read_text())["_class_name"]
    return xl and bool(json.loads(config.read_text()).get("force_upcast", True))


def _largest(counts: Mapping[tuple[str, str], int]) -> int:
    forms = {form for form, _ in counts}
    return max(sum(n for (of, _), n in counts.items() if of == form) for form in forms)


def _header(path: Path) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield name, math.prod(tensor["shape"])
