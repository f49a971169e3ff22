"""This module knows which files of a diffusers model folder a pipeline needs, and checks them.

A folder holds model_index.json and one folder per component; the same weights often lie there
several times: as pickles, for other frameworks, or as a *variant* such as `model.fp16.safetensors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from runnables.checkpoints.families import COMPONENTS

INDEX = "model_index.json"
#: what the weights may be used for stays with them
LICENCE = re.compile(r"licen[cs]e.*", re.IGNORECASE)
CONFIGURATION = re.compile(r".*\.(json|txt)")
#: model.safetensors, model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
WEIGHTS = re.compile(r"[^.]+?(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.safetensors")


class Incomplete(Exception):
    """A component, or part of a file, is not there; the message names it."""


def components(index: Mapping[str, Any]) -> dict[str, str]:
    """Return component -> class name, for those a family uses and model_index.json has."""
    return {
        name: value[1]
        for name, value in index.items()
        if name in COMPONENTS and value and value[1] is not None
    }


def variants(names: Iterable[str]) -> set[str]:
    """Return the variants among one component's file names; "" stands for plain weights."""
    matches = (WEIGHTS.fullmatch(PurePosixPath(name).name) for name in names)
    return {match["variant"] or "" for match in matches if match}


def choose(available: set[str], variant: str) -> str | None:
    """Return the variant to take: the requested one, else plain, else fp16.

    Return None where none suits.
    """
    return next((name for name in (variant, "", "fp16") if name in available), None)


def needed(names: Iterable[str], index: Mapping[str, Any], variant: str = "") -> list[str]:
    """Return the files a pipeline is loaded from.

    Args:
        names: every file of the repository or folder, as paths relative to it.
        variant: such as "fp16", taken where a component has it.

    Raises:
        Incomplete: a component has no files, or no safetensors weights.
    """
    every = sorted(names)
    top = [name for name in every if name == INDEX or LICENCE.fullmatch(name)]
    return top + [
        file for component in components(index) for file in _of(component, every, variant)
    ]


def _of(component: str, names: list[str], variant: str) -> list[str]:
    own = [name for name in names if PurePosixPath(name).parent.as_posix() == component]
    configurations = [name for name in own if CONFIGURATION.fullmatch(name)]
    if not own:
        raise Incomplete(f"the model has no {component}/, which its {INDEX} lists")
    if not COMPONENTS[component].weights:
        return configurations
    chosen = choose(variants(own), variant)
    if chosen is None:
        raise Incomplete(
            f"{component}/ has no .safetensors weights; pickled ones (.bin, .ckpt) can run code "
            "when they are loaded, and are not taken"
        )
    return configurations + [name for name in own if variants([name]) == {chosen}]


def check_complete(path: Path) -> None:
    """Compare a .safetensors file's length with its header, without reading the weights.

    The header is 8 bytes of length, then JSON with each tensor's `data_offsets`
    (https://github.com/huggingface/safetensors#format).

    Raises:
        Incomplete: the file ends early, as after a broken copy, or is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > size - 8:
                raise ValueError("it ends within its header")
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Incomplete(f"{path} is not a whole safetensors file: {error}") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise Incomplete(f"{path} has {size} bytes, not {expected}: copied in part?")
