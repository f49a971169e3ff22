"""Each component of a diffusers folder is loaded here by its own class, from safetensors only."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from runnables.checkpoints import layout, mounts
from runnables.checkpoints.families import COMPONENTS
from runnables.checkpoints.quantization import quantize
from runnables.errors import ConfigurationError


def load_component(
    folder: Path,
    index: Mapping[str, Any],
    name: str,
    dtype: torch.dtype,
    quantized: str | None = None,
) -> Any:
    """Return one component, on the CPU: a module in evaluation mode, or a processor.

    Args:
        quantized: how its weights are kept, a key of `quantization.CONFIGS`; None: in `dtype`.

    Returns:
        None where model_index.json lists none.

    Raises:
        ConfigurationError: it is missing, incomplete, or of a class that no family here knows.
    """
    class_name = layout.components(index).get(name)
    if class_name is None:
        return None
    kind = class_of(name, class_name)
    with foreign(f"{folder / name} cannot be loaded"):
        if not COMPONENTS[name].weights:
            return kind.from_pretrained(folder / name)
        module = load_module(kind, folder / name, dtype)
        if quantized:
            quantize(module, quantized)
        return module


@contextmanager
def foreign(what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever foreign files make the libraries raise into a refusal that says what failed."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise refusal(f"{what}: {error}{remedy}") from error


def refusal(message: str) -> ConfigurationError:
    """Return an error that says what is wrong with the model that SD_MODEL names."""
    return ConfigurationError(message, loc=("SD_MODEL",))


def load_module(kind: Any, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """Load a diffusers or transformers module, on the CPU, in evaluation mode, without gradients.

    Raises:
        ConfigurationError: it has no safetensors, or lacks weights. Libraries raise as they like.
    """
    files = [path.name for path in folder.iterdir()]
    chosen = layout.choose(layout.variants(files), "fp16" if dtype == torch.float16 else "")
    if chosen is None:
        raise refusal(f"{folder} has no .safetensors weights; pickled ones are not loaded")
    module, report = kind.from_pretrained(
        folder,
        dtype=dtype,
        variant=chosen or None,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **mounts.reading(folder),
    )
    if missing := sorted(report["missing_keys"]):  # they would be left at random
        raise refusal(f"{folder} lacks {len(missing)} weights, the first is {missing[0]}")
    weights: torch.nn.Module = module.eval().requires_grad_(False)
    return weights


def class_of(component: str, name: str) -> Any:
    """Return the class that a component named so in model_index.json is loaded with.

    Raises:
        ConfigurationError: no family here knows such a class.
    """
    known = COMPONENTS[component].classes
    if name not in known:
        raise refusal(f"{component} is a {name}; supported are {', '.join(known)}")
    return pkgutil.resolve_name(known[name])
