"""`python -m models compile-neuron` compiles a diffusers folder to graphs for Inferentia2.

The compiler is optimum-neuron's own command, one run per shape. A manifest lists what it wrote and
the versions that wrote it, because artefacts of other versions may not load.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MANIFEST = "neuron.json"
LIBRARIES = ("optimum-neuron", "torch-neuronx", "neuronx-cc", "torch", "diffusers", "transformers")
CORES = 2  # of a device: the UNet lies on both, half of the rows on each


@dataclass(frozen=True)
class Compilation:
    """A compilation says what to compile.

    Attributes:
        source: a diffusers folder or Hub id.
        sizes: (height, width) in pixels.
        rows: denoiser rows of a step, even; a guided image takes two.
        cast: which operations run in bfloat16.
        instance: inf2, trn1, trn1n or trn2.
    """

    source: str
    sizes: tuple[tuple[int, int], ...]
    rows: int = 4
    cast: str = "matmul"
    instance: str = "inf2"

    def __post_init__(self) -> None:
        if self.rows < CORES or self.rows % CORES:
            raise ValueError(f"rows is {self.rows}; it must be a multiple of {CORES}")

    def arguments(self, size: tuple[int, int], output: Path) -> list[str]:
        """Return the arguments of `optimum-cli export neuron` for one shape."""
        height, width = size
        shapes = {"batch_size": self.rows // CORES, "height": height, "width": width}
        options = {
            "model": self.source,
            "task": "text-to-image",
            "instance_type": self.instance,
            **shapes,
            "num_images_per_prompt": 1,
            "auto_cast": self.cast,
        }
        if self.cast != "none":
            options["auto_cast_type"] = "bf16"
        named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [*named, "--disable-validation", str(output)]


class CompilationFailed(Exception):
    """The compiler ended with an error, which it has printed."""


def compile_neuron(what: Compilation, into: Path, *extra: str) -> Path:
    """Compile every shape into its own folder below `into`.

    Args:
        extra: further arguments of the compiler's command.

    Raises:
        CompilationFailed: for the first shape that the compiler refuses.
    """
    shapes = {}
    for number, (height, width) in enumerate(what.sizes, 1):
        name = f"{height}x{width}"
        print(f"compiling {name}, {number} of {len(what.sizes)}", flush=True)
        _run(what.arguments((height, width), into / name), extra)
        _copy_profile(Path(what.source), into / name)
        shapes[name] = _compiler(into / name)
    manifest = {**asdict(what), "shapes": shapes, "libraries": _versions()}
    (into / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return into


def _run(arguments: list[str], extra: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "optimum.exporters.neuron", *arguments, *extra]
    if subprocess.run(command).returncode:
        raise CompilationFailed(f"the compiler refused: {' '.join(command)}")


def _copy_profile(source: Path, folder: Path) -> None:
    if (source / "profile.json").is_file():
        shutil.copy(source / "profile.json", folder)


def _compiler(folder: Path) -> dict[str, Any]:
    """Return how the UNet was compiled, as its own configuration says."""
    compiled: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text())["neuron"]
    return compiled


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
