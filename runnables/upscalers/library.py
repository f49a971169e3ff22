"""Requests may name these upscalers: `lanczos`, and the models in the operator's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnables.checkpoints.library import Library
from runnables.errors import InvalidInput, Loc, UnknownName

if TYPE_CHECKING:
    import torch

    from runnables.settings import Settings
    from runnables.upscalers.upscaler import Swin2SR, Upscaler

logger = logging.getLogger(__name__)

LANCZOS = {"name": "lanczos", "scale": 2}
PATTERN = "*/config.json"
MODEL_TYPE = "swin2sr"
MAX_SCALE = 4


def describe(folder: str | None) -> list[dict[str, Any]]:
    """Return names and scales, `lanczos` first; folders with other models are left out."""
    paths = sorted(Path(folder).expanduser().glob(PATTERN)) if folder else []
    found = [{"name": path.parent.name, "scale": _scale(path)} for path in paths]
    return [LANCZOS, *(one for one in found if one["scale"] and one["name"] != LANCZOS["name"])]


class Upscalers:
    """This class loads upscalers at their first use, and keeps those used last."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._folder = settings.upscaler_dir
        self._device = device
        self._models: Library[Swin2SR] = Library(
            settings.upscaler_dir,
            PATTERN,
            self._load,
            field=("upscaler", "SD_UPSCALER_DIR"),
            budget=settings.adapters_memory_mb * 1e6,
        )

    def get(self, name: str, loc: Loc) -> Upscaler:
        """Return an upscaler. Raise UnknownName, or InvalidInput where its files are damaged."""
        from runnables.upscalers.upscaler import Lanczos

        if name == LANCZOS["name"]:
            return Lanczos()
        known = [one["name"] for one in describe(self._folder)]
        if name not in known:
            raise UnknownName(f"there is no upscaler {name!r}; known: {', '.join(known)}", loc=loc)
        try:
            return self._models.get(name)
        except Exception as error:  # transformers has many ways to say that files are damaged
            logger.exception("the upscaler %s cannot be loaded", name)
            raise InvalidInput(
                f"the upscaler {name} cannot be loaded; the server's log says why", loc=loc
            ) from error

    def _load(self, name: str, path: Path) -> Swin2SR:
        from transformers import Swin2SRForImageSuperResolution

        from runnables.upscalers.upscaler import Swin2SR

        model, report = Swin2SRForImageSuperResolution.from_pretrained(
            path.parent, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        if missing := report["missing_keys"]:  # they would be random numbers
            raise ValueError(f"{path.parent} lacks {', '.join(sorted(missing)[:5])}")
        return Swin2SR(name, model.float().to(self._device).eval().requires_grad_(False))


def _scale(path: Path) -> int:
    """Return how many times a model enlarges; 0 where it does not."""
    try:
        config = json.loads(path.read_text())
        scale = config.get("upscale", 2) if config.get("model_type") == MODEL_TYPE else 0
    except (OSError, ValueError, AttributeError):
        return 0
    return scale if isinstance(scale, int) and 2 <= scale <= MAX_SCALE else 0
