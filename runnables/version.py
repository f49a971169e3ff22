"""The version of this project is written here only."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

VERSION = "1.1.0"
#: the packages that decide what an image looks like
PACKAGES = ("torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """Return the version of this project and of the packages below it that are installed."""
    found = {"version": VERSION}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a Ray ingress needs none of them
            continue
    return found
