"""The images of jobs, with one folder per job. Files are written before the row that names them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

from PIL import Image

from runnables.images import codec

ORPHAN_S = 3600  # a folder without a row is younger than this only while its job is being accepted


class Files:
    """All folders of jobs, inside one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def new(self, inputs: dict[str, Image.Image]) -> str:
        """Return the name of a new folder with these input images, which are kept lossless."""
        name = uuid4().hex
        self._make(name)
        try:
            for field, image in inputs.items():
                self.write(name, f"{field}.png", codec.encode(image, "png"))
        except OSError:
            self.remove([name])
            raise
        return name

    def input(self, folder: str, field: str) -> Image.Image | None:
        """Return an input image as it was sent, or None where the job has none."""
        path = self._root / folder / f"{field}.png"
        if not path.exists():
            return None
        with Image.open(path) as image:
            image.load()
            return image

    def write(self, folder: str, name: str, data: bytes) -> None:
        """Write a file; it is on the disk when this returns.

        Its folder is made again where somebody has removed it while the job waited.
        """
        self._make(folder)
        with (self._root / folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _make(self, folder: str) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._root / folder).mkdir(exist_ok=True)

    def path(self, folder: str, name: str) -> Path:
        """Return where a file lies."""
        return self._root / folder / name

    def remove(self, folders: Iterable[str]) -> None:
        """Remove folders and what is in them."""
        for folder in folders:
            if folder:
                shutil.rmtree(self._root / folder, ignore_errors=True)

    def orphans(self, known: set[str]) -> Iterator[str]:
        """Yield the folders that no row names: their jobs were not accepted, or are forgotten."""
        for entry in self._root.iterdir():
            if entry.name not in known and time.time() - entry.stat().st_mtime > ORPHAN_S:
                yield entry.name
