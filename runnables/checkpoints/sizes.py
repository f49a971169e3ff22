"""The sizes of a model's components are described here, and read from a folder's files.

`python -m models fit` plans with them. This module imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


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
