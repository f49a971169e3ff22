"""The extensions, which add to a model what requests ask for, are listed here."""

from __future__ import annotations

from runnables.extensions.base import Context, Extension
from runnables.extensions.controlnet.extension import ControlNets
from runnables.extensions.deep_cache import DeepCache
from runnables.extensions.lora.extension import Loras
from runnables.extensions.previews import Previews
from runnables.extensions.safety import SafetyCheck
from runnables.extensions.skip_layers import SkipLayers
from runnables.extensions.textual_inversion.extension import TextualInversions
from runnables.families.base import Family

EXTENSIONS: tuple[type[Extension], ...] = (
    Loras,
    ControlNets,
    TextualInversions,
    DeepCache,
    SkipLayers,
    SafetyCheck,
    Previews,
)


def extensions_of(family: Family, context: Context) -> tuple[Extension, ...]:
    """Return the extensions that this model takes."""
    return tuple(kind(family, context) for kind in EXTENSIONS if kind.suits(family))
