"""manifest.json lists what a model folder must hold, so that no half-copied model is served."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "manifest.json"
#: files that may be edited or added after the import without making the model another one
FREE = {NAME, "profile.json", "vocabulary.json", "README.md"}


class Damaged(Exception):
    """A file is missing, or is not the one the manifest was written for; the message names it."""


def write(folder: Path, *, source: str, revision: str | None = None) -> dict[str, Any]:
    """List every file's size and SHA-256 in manifest.json.

    Args:
        source: where the model came from: a Hub id, or a folder's name.
        revision: the Hub commit.
    """
    manifest = {
        "source": source,
        "revision": revision,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {
            path.relative_to(folder).as_posix(): {
                "size": path.stat().st_size,
                "sha256": sha256(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _counts(path.relative_to(folder))
        },
    }
    (folder / NAME).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, or None where the folder has none.

    Raises:
        Damaged: it is there but cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files = manifest["files"].values()
        if not all({"size", "sha256"} <= file.keys() for file in files):
            raise ValueError("a file's size or sha256 is missing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is not a manifest: {error}") from error
    return manifest


def verify(folder: Path, *, hashes: bool = True) -> bool:
    """Compare a folder with its manifest; return False where it has none.

    Args:
        hashes: also read every file and compare SHA-256 (about 1 s per GB), not sizes alone.

    Raises:
        Damaged: naming the first file that is missing, short or other.
    """
    manifest = read(folder)
    if manifest is None:
        return False
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing: the model was not copied completely")
        size = path.stat().st_size
        if size != wanted["size"]:
            raise Damaged(f"{path} has {size} bytes, not {wanted['size']}: copied in part?")
        if hashes and sha256(path) != wanted["sha256"]:
            raise Damaged(f"{path} is not the file that was imported: its SHA-256 differs")
    return True


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _counts(name: Path) -> bool:
    hidden = any(part.startswith((".", "__")) for part in name.parts)
    return not hidden and name.name not in FREE and name.suffix not in {".py", ".md"}
