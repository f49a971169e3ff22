"""`terraform output -json workers | python -m sd_aws_eks.workers FOLDER`: workers' settings.

FOLDER is `kubernetes/deployment`. A runtime that is one of several has a folder of its own there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sd_aws_eks.manifests import WORKERS


def write(folder: Path, environments: dict[str, str]) -> list[Path]:
    """Write the environment of every runtime beside its kustomization; return the files."""
    written = []
    for runtime, text in environments.items():
        own = folder / runtime
        target = (own if own.is_dir() else folder) / WORKERS
        target.write_text(text + "\n", encoding="utf-8")
        written.append(target)
    return written


if __name__ == "__main__":
    print(*write(Path(sys.argv[1]), json.load(sys.stdin)), sep="\n")
