"""Models of published sizes with random weights: their memory and seconds are those of real ones.

What an image shows does not matter here. T5 is left out, as SD_T5=false does; the tokenizers are
those of the demo model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from runnables.settings import EMBEDDED_MODEL

KINDS = ("sdxl", "sd-3-medium")
#: source: config.json of each component in stabilityai/stable-diffusion-xl-base-1.0
UNET = {
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
    "sample_size": 128,
}
#: source: transformer/config.json in stabilityai/stable-diffusion-3-medium-diffusers
TRANSFORMER = {
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 1024,
}
VAE_16 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def build(kind: str, folder: Path) -> Path:
    """Write a model of a kind into `folder` in bf16, unless it is there, and return the folder."""
    if not (folder / "model_index.json").is_file():
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        try:
            _pipeline(kind, parts_of(kind)).save_pretrained(folder)
        except BaseException:  # half a model would be taken for a whole one
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            torch.set_default_dtype(before)
    return folder


def parts_of(kind: str) -> dict[str, nn.Module]:
    """Return the components that have weights."""
    if kind == "sdxl":
        return {
            "unet": diffusers.UNet2DConditionModel(**UNET),
            "vae": diffusers.AutoencoderKL(**VAE, latent_channels=4),
            "text_encoder": _clip("CLIPTextModel", CLIP_L),
            "text_encoder_2": _clip("CLIPTextModelWithProjection", CLIP_G),
        }
    return {
        "transformer": diffusers.SD3Transformer2DModel(**TRANSFORMER),
        "vae": diffusers.AutoencoderKL(**VAE, **VAE_16),
        "text_encoder": _clip("CLIPTextModelWithProjection", CLIP_L),
        "text_encoder_2": _clip("CLIPTextModelWithProjection", CLIP_G),
    }


def _pipeline(kind: str, parts: dict[str, nn.Module]) -> Any:
    tokenizers = {"tokenizer": _tokenizer(), "tokenizer_2": _tokenizer()}
    if kind == "sdxl":
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        return diffusers.StableDiffusionXLPipeline(**parts, **tokenizers, scheduler=scheduler)
    return diffusers.StableDiffusion3Pipeline(
        **parts,
        **tokenizers,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _clip(name: str, options: dict[str, Any]) -> nn.Module:
    kind, tokenizer = getattr(transformers, name), _tokenizer()
    module: nn.Module = kind(kind.config_class(**options, eos_token_id=tokenizer.eos_token_id))
    return module


def _tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(Path(EMBEDDED_MODEL) / "tokenizer")
