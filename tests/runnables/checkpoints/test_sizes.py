"""The sizes of known models are those of their real configs, built without memory and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from runnables.checkpoints.loading import load
from runnables.checkpoints.sizes import ARCHITECTURES, of_folder

#: source: transformer/config.json and unet/config.json of the catalog's repositories
MMDIT = {
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}
CONFIGS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("sd-1", "unet"): (
        "UNet2DConditionModel",
        {"cross_attention_dim": 768, "attention_head_dim": 8},
    ),
    ("sdxl", "unet"): (
        "UNet2DConditionModel",
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
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
}
T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


@pytest.mark.parametrize(("architecture", "component"), CONFIGS)
def test_denoisers(architecture: str, component: str) -> None:
    name, config = CONFIGS[architecture, component]
    with torch.device("meta"):
        module = getattr(diffusers, name)(**config)
    stored = sum(tensor.numel() for tensor in module.state_dict().values())
    assert ARCHITECTURES[architecture].weights[component] == stored


def test_t5_xxl() -> None:
    with torch.device("meta"):
        module = transformers.T5EncoderModel(transformers.T5Config(**T5_XXL))
    stored = {name: tensor.numel() for name, tensor in module.state_dict().items()}
    stored.pop("encoder.embed_tokens.weight", None)  # it is the one that is shared
    assert sum(stored.values()) == ARCHITECTURES["flux.1-dev"].weights["text_encoder_2"]


def test_a_folder_is_measured_by_its_headers(tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("flux-dev")
    sizes = load(str(folder), dtype=torch.float32).sizes
    measured = of_folder(folder)
    assert measured.keys() == sizes.keys()
    assert all(4 * measured[name] == pytest.approx(sizes[name], rel=0.02) for name in sizes)
