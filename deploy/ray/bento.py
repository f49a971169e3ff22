"""A Bento as its bentofile says, with Ray and its host inside: `python -m deploy.ray.bento fp16`.

What it builds is called like the other, with `_ray` at its end: stable_diffusion_fp16_ray.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def bentofile(kind: str) -> dict[str, Any]:
    """The options of `bentofile.KIND.yaml`, and Ray's beside them.

    Raises:
        FileNotFoundError: there is no such bentofile.
    """
    path = ROOT / ("bentofile.yaml" if kind == "fp32" else f"bentofile.{kind}.yaml")
    given: dict[str, Any] = yaml.safe_load(path.read_text())
    given["name"] += "_ray"
    given["labels"]["host"] = "ray"
    given["include"] += ["hosts/ray/*.py", "deploy/ray/serve.yaml"]
    python = given["python"]
    source = python.pop("requirements_txt", None)  # a Bento's cannot refer to another file
    python["packages"] = [
        *(_lines("serve.txt") if source else python["packages"]),
        *(line for line in _lines("ray.txt") if not line.startswith("-r")),
    ]
    return given


def _lines(name: str) -> list[str]:
    """The requirements in a file, without comments."""
    text = (ROOT / "requirements" / name).read_text()
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main(arguments: list[str]) -> int:
    """Build it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.ray.bento", description=__doc__)
    kinds = ("fp32", *(path.name.split(".")[1] for path in sorted(ROOT.glob("bentofile.*.yaml"))))
    parser.add_argument("kind", choices=kinds, help="which bentofile")
    kind = parser.parse_args(arguments).kind
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(bentofile(kind), file)
        file.flush()
        program = str(Path(sys.executable).with_name("bentoml"))
        return subprocess.run(
            [program, "build", "-f", file.name, str(ROOT)], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
