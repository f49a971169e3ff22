"""`python -m models fit` plans a model's memory with the planner that the service starts with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runnables.accelerators.placement import BYTES, place, working_bytes
from runnables.checkpoints import catalog, sizes
from runnables.errors import ConfigurationError
from runnables.settings import Settings

CONTEXT = 0.5e9  # bytes of a card that the driver and its libraries take


class DoesNotFit(Exception):
    """The model does not fit the card, or is not known; the message says why."""


def fit(name: str, gpu: float, precision: str, quantize: str = "") -> Iterator[str]:
    """Return lines that say how a model fits a card.

    Args:
        name: of the catalog, or a diffusers folder.
        gpu: GB (1e9 bytes) of memory.
        quantize: what SD_QUANTIZE takes.

    Raises:
        DoesNotFit: nothing fits, or there is no such model or component.
    """
    known = _known(name)
    weights, side = known.weights, known.side
    kinds = Settings(quantize=quantize).quantized
    if unknown := sorted(kinds.keys() - weights.keys()):
        raise DoesNotFit(f"{name} has no {', '.join(unknown)}; it has {', '.join(weights)}")
    formats = dict.fromkeys(weights, precision) | kinds
    if known.wide_vae and precision == "fp16" and "vae" in formats:
        formats["vae"] = "fp32"
    parts = {part: count * BYTES[formats[part]] for part, count in weights.items()}
    for part, size in parts.items():
        yield f"{part:16} {weights[part] / 1e9:6.2f} billion weights, {size / 1e9:5.1f} GB"
    working = working_bytes(side, side, BYTES[formats.get("vae", precision)])
    yield f"{'at work':16} {working / 1e9:31.1f} GB at {side}x{side}, an estimate"
    try:
        yield str(place(parts, working, 1e9 * gpu - CONTEXT))
    except ConfigurationError as error:
        raise DoesNotFit(error.message) from error


def _known(name: str) -> sizes.Architecture:
    """Return a model's components, with the side in pixels that it is asked for by default."""
    if entry := catalog.entry_of(name):
        known = catalog.ARCHITECTURES[entry.architecture]
        return replace(known, side=int(entry.defaults.get("height", known.side)))
    known = sizes.of_folder(catalog.folder_of(name) or Path(name))
    if known.weights:
        return known
    names = ", ".join(catalog.CATALOG)
    raise DoesNotFit(f"there is no model {name}; the catalog has {names}")
