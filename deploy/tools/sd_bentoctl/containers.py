"""Building and pushing a Bento's image with docker, podman or buildah.

The three take the same commands; BENTOCTL_BUILDER picks one, else the first that is installed and,
in docker's case, whose daemon answers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

BUILDERS = ("docker", "podman", "buildah")


class ContainerError(RuntimeError):
    """A builder is missing or failed."""


def builder() -> str:
    """The builder's command name.

    Raises:
        ContainerError: the one asked for is unknown or missing, or none is installed.
    """
    asked = os.environ.get("BENTOCTL_BUILDER")
    if asked and (asked not in BUILDERS or not shutil.which(asked)):
        raise ContainerError(
            f"BENTOCTL_BUILDER={asked}: use one of {', '.join(BUILDERS)} that is installed"
        )
    usable = asked or next((name for name in BUILDERS if _usable(name)), None)
    if usable is None:
        raise ContainerError(f"none of {', '.join(BUILDERS)} works here; install one of them")
    return usable


def _usable(name: str) -> bool:
    if not shutil.which(name):
        return False
    # a docker client without its daemon is common, and podman beside it would do
    return name != "docker" or _answers([name, "version"])


def _answers(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build(context: str, dockerfile: str, tags: Sequence[str], options: Sequence[str] = ()) -> None:
    """Build the image of a context under all tags."""
    names = [word for tag in tags for word in ("--tag", tag)]
    _run([builder(), "build", "--file", dockerfile, *names, *options, context])


def tag(image: str, name: str) -> None:
    """Give a local image one more name."""
    _run([builder(), "tag", image, name])


def push(image: str, user: str, password: str) -> None:
    """Log in to the image's registry and push. The password never appears on a command line."""
    registry = image.split("/")[0]
    tool = builder()
    _run([tool, "login", "--username", user, "--password-stdin", registry], text=password)
    _run([tool, "push", image])


def _run(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, text=True, check=False)
    if done.returncode:
        raise ContainerError(f"`{' '.join(command[:2])}` failed with status {done.returncode}")
