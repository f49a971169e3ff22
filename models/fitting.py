"""`python -m models fit` plans a model's memory with the planner that the service starts with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    weights, side = _known(name)
    kinds = Settings(quantize=quantize).quantized
    if unknown := sorted(kinds.keys() - weights.keys()):
        raise DoesNotFit(f"{name} has no {', '.join(unknown)}; it has {', '.join(weights)}")
    parts = {part: count * BYTES[kinds.get(part, precision)] for part, count in weights.items()}
    for part, size in parts.items():
        yield f"{part:16} {weights[part] / 1e9:6.2f} billion weights, {size / 1e9:5.1f} GB"
    working = working_bytes(side, side, BYTES[precision])
    yield f"{'at work':16} {working / 1e9:31.1f} GB at {side}x{side}, an estimate"
    try:
        yield str(place(parts, working, 1e9 * gpu - CONTEXT))
    except ConfigurationError as error:
        raise DoesNotFit(error.message) from error


def _known(name: str) -> tuple[Mapping[str, int], int]:
    if entry := catalog.entry_of(name):
        side = int(entry.defaults.get("height", sizes.ARCHITECTURES[entry.architecture].side))
        return entry.weights, side
    folder = catalog.folder_of(name) or Path(name)
    if weights := sizes.of_folder(folder):
        return weights, 1024
    known = ", ".join(catalog.CATALOG)
    raise DoesNotFit(f"there is no model {name}; the catalog has {known}")
