"""The extensions, which add to a model what requests ask for, are listed here, one line each."""

from __future__ import annotations

import pkgutil

from runnables.extensions.base import Context, Extension
from runnables.families.base import Family

#: where the classes are; a batch applies them in this order
EXTENSIONS = [
    "runnables.extensions.lora.extension:Loras",
    "runnables.extensions.controlnet.extension:ControlNets",
    "runnables.extensions.textual_inversion.extension:TextualInversions",
    "runnables.extensions.deep_cache:DeepCache",
    "runnables.extensions.skip_layers:SkipLayers",
    "runnables.extensions.safety:SafetyCheck",
    "runnables.extensions.previews:Previews",
]


def extensions_of(family: Family, context: Context) -> tuple[Extension, ...]:
    """Return the extensions that this model takes."""
    kinds: list[type[Extension]] = [pkgutil.resolve_name(place) for place in EXTENSIONS]
    return tuple(kind(family, context) for kind in kinds if kind.suits(family))
