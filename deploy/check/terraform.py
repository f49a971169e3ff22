"""Running Terraform: from a local provider mirror where there is one, and with honest failures."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

PROVIDER = Path("registry.terraform.io/hashicorp/aws")


class Failed(RuntimeError):
    """A command failed; the message holds the end of what it said."""


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> str:
    """A command's output.

    Raises:
        Failed: its exit status is not 0.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def mirrors() -> Iterator[Path]:
    """Folders that may hold the provider: TF_PLUGIN_MIRROR, then where people put mirrors."""
    if "TF_PLUGIN_MIRROR" in os.environ:
        yield Path(os.environ["TF_PLUGIN_MIRROR"])
    yield Path.home() / ".terraform.d" / "plugins"
    for base in ("/usr/local/share/terraform", "/usr/share/terraform"):
        yield Path(base) / "plugins"
    yield from (path.parents[2] for path in sorted(Path("/opt").glob(f"*/{PROVIDER}")))


def configuration(folder: Path) -> dict[str, str]:
    """Environment that makes Terraform use a mirror of the provider; empty where there is none."""
    mirror = next((path for path in mirrors() if (path / PROVIDER).is_dir()), None)
    if mirror is None:
        return {}
    file = folder / "terraform.rc"
    path = json.dumps(str(mirror))
    file.write_text(
        f"provider_installation {{\n  filesystem_mirror {{\n    path = {path}\n  }}\n}}\n"
    )
    return {"TF_CLI_CONFIG_FILE": str(file)}
