"""Model families: adding one is one line here and one file beside."""

from __future__ import annotations

from runnables.families.base import Pipeline
from runnables.families.stable_diffusion import StableDiffusion
from runnables.families.stable_diffusion_xl import StableDiffusionXL

PIPELINES: dict[str, type[Pipeline]] = {
    "stable-diffusion": StableDiffusion,
    "stable-diffusion-xl": StableDiffusionXL,
    "stable-diffusion-xl-refiner": StableDiffusionXL,
}
