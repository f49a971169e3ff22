"""The web page's image for Ray, named by its contents: building it again changes nothing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[4]
UNBUILT = "stable-diffusion-ui:not-built"


def page_tag() -> str:
    """`page-` and a digest of what ui/Dockerfile copies."""
    digest = hashlib.sha256()
    parts = [ROOT / "requirements" / name for name in ("constraints.txt", "ui.txt")]
    page = [one for one in (ROOT / "ui").rglob("*") if one.is_file() and one.suffix != ".pyc"]
    for path in [*parts, *sorted(page)]:
        digest.update(path.read_bytes())
    return f"page-{digest.hexdigest()[:12]}"


def page_image(image: str | None) -> str:
    """Beside the service's image, in the same repository."""
    if image is None:
        return UNBUILT
    repository = image.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    return f"{repository}:{page_tag()}"


def wanted(folder: Path) -> set[str]:
    """The page's images that generated kustomizations name, and that are ours to build."""
    found = set()
    for path in folder.glob("kubernetes/deployment/**/kustomization.yaml"):
        for one in yaml.safe_load(path.read_text()).get("images", []):
            if one.get("newTag") == page_tag():
                found.add(f"{one['newName']}:{one['newTag']}")
    return found


if __name__ == "__main__":
    print("\n".join(sorted(wanted(Path(sys.argv[1])))))
