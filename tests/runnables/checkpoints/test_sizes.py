"""The sizes of known models are those of their real configs, built without memory and counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from benchmarks.random_models import TRANSFORMER, UNET, VAE, VAE_16
from runnables.accelerators.base import Accelerator
from runnables.assembly import family_of
from runnables.checkpoints.catalog import ARCHITECTURES
from runnables.checkpoints.loading import load
from runnables.checkpoints.sizes import of_folder
from runnables.settings import Settings

#: what the transformers of SD 3 and 3.5 have in common
MMDIT = {
    name: TRANSFORMER[name]
    for name in (
        "sample_size",
        "in_channels",
        "out_channels",
        "attention_head_dim",
        "joint_attention_dim",
        "pooled_projection_dim",
    )
}
#: source: transformer/config.json and unet/config.json of the catalog's repositories
CONFIGS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("sd-1", "unet"): (
        "UNet2DConditionModel",
        {"cross_attention_dim": 768, "attention_head_dim": 8},
    ),
    ("sdxl", "unet"): (
        "UNet2DConditionModel",
        UNET,
    ),
    ("sd-2", "unet"): (
        "UNet2DConditionModel",
        {
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
    ),
    ("sdxl-refiner", "unet"): (
        "UNet2DConditionModel",
        {
            "block_out_channels": (384, 768, 1536, 1536),
            "down_block_types": (
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ),
            "up_block_types": (
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ),
            "transformer_layers_per_block": 4,
            "attention_head_dim": [6, 12, 24, 24],
            "cross_attention_dim": 1280,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
            "use_linear_projection": True,
        },
    ),
    ("sd-3-medium", "transformer"): (
        "SD3Transformer2DModel",
        {
            **MMDIT,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    ),
    ("sd-3.5-large", "transformer"): (
        "SD3Transformer2DModel",
        {
            **MMDIT,
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
    ),
    ("sd-3.5-medium", "transformer"): (
        "SD3Transformer2DModel",
        {
            **MMDIT,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "dual_attention_layers": tuple(range(13)),
        },
    ),
    ("flux.1-dev", "transformer"): ("FluxTransformer2DModel", {"guidance_embeds": True}),
    ("flux.1-schnell", "transformer"): ("FluxTransformer2DModel", {"guidance_embeds": False}),
    ("z-image", "transformer"): ("ZImageTransformer2DModel", {}),
    ("flux.2-klein-4b", "transformer"): (
        "Flux2Transformer2DModel",
        {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
    ),
    ("flux.2-klein-4b", "vae"): ("AutoencoderKLFlux2", {**VAE, "latent_channels": 32}),
    **{(name, "vae"): ("AutoencoderKL", VAE) for name in ("sd-1", "sd-2", "sdxl", "sdxl-refiner")},
    **{
        (name, "vae"): ("AutoencoderKL", {**VAE, **VAE_16})
        for name in ("sd-3-medium", "sd-3.5-large", "flux.1-dev", "z-image")
    },
}
T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


#: source: text_encoder*/config.json of the same repositories
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
QWEN3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
TEXTS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("sd-1", "text_encoder"): ("CLIPTextModel", CLIP_L),
    ("sd-2", "text_encoder"): ("CLIPTextModel", CLIP_H),
    ("sdxl", "text_encoder"): ("CLIPTextModel", CLIP_L),
    ("sdxl", "text_encoder_2"): ("CLIPTextModelWithProjection", CLIP_G),
    ("sdxl-refiner", "text_encoder_2"): ("CLIPTextModelWithProjection", CLIP_G),
    ("sd-3-medium", "text_encoder"): (
        "CLIPTextModelWithProjection",
        {**CLIP_L, "projection_dim": 768},
    ),
    ("sd-3-medium", "text_encoder_2"): ("CLIPTextModelWithProjection", CLIP_G),
    ("flux.1-dev", "text_encoder"): ("CLIPTextModel", CLIP_L),
    ("z-image", "text_encoder"): ("Qwen3Model", QWEN3_4B),
    ("flux.2-klein-4b", "text_encoder"): ("Qwen3Model", QWEN3_4B),
}


@pytest.mark.parametrize(("architecture", "component"), CONFIGS)
def test_denoisers_and_vaes(architecture: str, component: str) -> None:
    name, config = CONFIGS[architecture, component]
    with torch.device("meta"):
        module = getattr(diffusers, name)(**config)
    stored = sum(tensor.numel() for tensor in module.state_dict().values())
    assert ARCHITECTURES[architecture].weights[component] == stored


@pytest.mark.parametrize(("architecture", "component"), TEXTS)
def test_text_encoders(architecture: str, component: str) -> None:
    name, options = TEXTS[architecture, component]
    kind = getattr(transformers, name)
    with torch.device("meta"):
        module = kind(kind.config_class(**options))
    stored = sum(tensor.numel() for tensor in module.state_dict().values())
    assert ARCHITECTURES[architecture].weights[component] == stored


def test_the_safety_checker() -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    }
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=768)
    with torch.device("meta"):
        module = StableDiffusionSafetyChecker(config)
    stored = sum(tensor.numel() for tensor in module.state_dict().values())
    assert ARCHITECTURES["sd-1"].weights["safety_checker"] == stored


def test_t5_xxl() -> None:
    with torch.device("meta"):
        module = transformers.T5EncoderModel(transformers.T5Config(**T5_XXL))
    stored = {name: tensor.numel() for name, tensor in module.state_dict().items()}
    stored.pop("encoder.embed_tokens.weight", None)  # it is the one that is shared
    assert sum(stored.values()) == ARCHITECTURES["flux.1-dev"].weights["text_encoder_2"]


def test_a_folder_is_measured_by_its_headers(tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("flux-dev")
    sizes = load(str(folder), dtype=torch.float32).sizes
    measured = of_folder(folder).weights
    assert measured.keys() == sizes.keys()
    assert all(4 * measured[name] == pytest.approx(sizes[name], rel=0.02) for name in sizes)


@pytest.mark.parametrize(
    ("kind", "force_upcast", "wide"),
    [("sdxl", True, True), ("sdxl", False, False), ("sd1", True, False)],
)
def test_a_folder_says_whether_its_vae_is_kept_in_fp32(
    tiny_model: Callable[[str], Path], tmp_path: Path, kind: str, force_upcast: bool, wide: bool
) -> None:
    shutil.copytree(tiny_model(kind), tmp_path, dirs_exist_ok=True)
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": force_upcast}))
    assert of_folder(tmp_path).wide_vae == wide
    half = Accelerator(torch.device("cpu"), torch.float16, Settings())
    vae = family_of(load(str(tmp_path), dtype=torch.float16), half).vae
    assert (vae.dtype == torch.float32) == wide, "as the service does"
