"""This module says where the models lie that a request may name beside the default."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from runnables.errors import ConfigurationError

logger = logging.getLogger(__name__)


class Sources(Mapping[str, str]):
    """Sources map names to the models of SD_MODELS, and to those that lie in SD_MODELS_DIR now.

    The folder is looked into each time, so that a model that arrives is served without a restart.

    Args:
        named: the models of SD_MODELS.
        folder: SD_MODELS_DIR.
        default: the name of the model that is served already; the folder may have it, too.
    """

    def __init__(self, named: Mapping[str, str], folder: str | None, default: str) -> None:
        self._named, self._default = named, default
        self._found: dict[str, str] = {}  # when the folder was looked into
        self._folder = Path(folder).expanduser() if folder else None
        if self._folder is not None and not self._folder.is_dir():
            raise ConfigurationError(f"SD_MODELS_DIR={folder}: no such folder")

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[str, str]:
        try:
            inside = sorted(self._folder.iterdir()) if self._folder else []
        except OSError as error:  # of a network perhaps, which comes back
            logger.warning("SD_MODELS_DIR cannot be read: %s", error)
            return {**self._found, **self._named}
        found = {path.name: str(path) for path in inside if _is_model(path)}
        found.pop(self._default, None)
        self._found = found
        return {**found, **self._named}


def _is_model(path: Path) -> bool:
    single = path.suffix in (".safetensors", ".gguf") and path.is_file()  # a pipe is read for ever
    return single or (path / "model_index.json").is_file()
