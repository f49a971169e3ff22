"""Writes an operator's Terraform files and their values into a folder."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_bentoctl import tfvars

VALUES = "bentoctl.tfvars"
IMAGE = "image_uri"


class Exists(ValueError):
    """A file to be written is there already, with other contents."""


def write(
    source: Path, destination: Path, values: Mapping[str, Any], *, values_only: bool
) -> list[str]:
    """Copy everything below `source` (unless `values_only`), then write bentoctl.tfvars.

    Returns:
        The paths written.

    Raises:
        Exists: a file differs from what would be written; nothing was changed then. A file that is
            the same is no error, so that generating twice is none.

    Where the configuration names no image, the one that `bentoctl build` wrote down stays.
    """
    files = [] if values_only else sorted(p for p in source.rglob("*") if p.is_file())
    targets = {path: destination / path.relative_to(source) for path in files}
    for path, target in targets.items():
        if target.exists() and not filecmp.cmp(path, target, shallow=False):
            raise Exists(
                f"{target} is there and differs; remove it to have it written again, "
                "or use --values-only to write the values only"
            )
    for path, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    complete = dict(values)
    if IMAGE in values and values[IMAGE] is None:
        complete[IMAGE] = tfvars.read(destination / VALUES, IMAGE)
    return [*map(str, targets.values()), str(tfvars.write(destination / VALUES, complete))]
