"""The build context: the Bento as it is, models inside."""

from __future__ import annotations

from pathlib import Path

DOCKERFILE = Path("env/docker/Dockerfile")


def create_deployable(
    bento_path: str, destination_dir: str, bento_metadata: dict[str, str], overwrite: bool = True
) -> str:
    """Part of bentoctl's contract with operators: the path of the build context.

    Our operators deploy the Bento's own image, so there is nothing to add to it.
    """
    if not (Path(bento_path) / DOCKERFILE).is_file():
        raise FileNotFoundError(f"{bento_path} has no {DOCKERFILE}; build the Bento again")
    return bento_path
