"""Models by short name: where they live, and the defaults their authors recommend.

Revisions are left open (None takes the newest); `python -m models import NAME --revision COMMIT`
pins one, and the manifest records it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Entry:
    """One known model; `defaults` are fields of runnables.parameters.Profile."""

    repository: str
    licence: str
    defaults: dict[str, Any] = field(default_factory=dict)
    revision: str | None = None


CATALOG: dict[str, Entry] = {
    "sd-1.5": Entry("stable-diffusion-v1-5/stable-diffusion-v1-5", "CreativeML OpenRAIL-M"),
    "sd-1.5-inpaint": Entry(
        "stable-diffusion-v1-5/stable-diffusion-inpainting", "CreativeML OpenRAIL-M"
    ),
    "sd-turbo": Entry(
        "stabilityai/sd-turbo",
        "Stability AI Community",
        {"num_inference_steps": 1, "guidance_scale": 0.0},  # its model card: 1 to 4 steps, none
    ),
    "sdxl": Entry(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "CreativeML OpenRAIL++-M",
        {"guidance_scale": 5.0},  # the default of diffusers' StableDiffusionXLPipeline
    ),
    "sdxl-refiner": Entry(
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        "CreativeML OpenRAIL++-M",
        {"guidance_scale": 5.0},
    ),
    "sdxl-turbo": Entry(
        "stabilityai/sdxl-turbo",
        "Stability AI Community",
        {"num_inference_steps": 1, "guidance_scale": 0.0, "height": 512, "width": 512},
    ),
    "lcm-dreamshaper-v7": Entry(
        "SimianLuo/LCM_Dreamshaper_v7",
        "MIT",
        {"num_inference_steps": 4, "guidance_scale": 8.5, "height": 768, "width": 768},
    ),
}


def folder_of(name: str) -> Path | None:
    """The folder of a model that is imported (or embedded) under this name."""
    folder = FOLDER / name
    return folder if "/" not in name and (folder / "model_index.json").is_file() else None


def entry_of(repository: str) -> Entry | None:
    """The catalog's entry for a Hub repository."""
    return next((entry for entry in CATALOG.values() if entry.repository == repository), None)
