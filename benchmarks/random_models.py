"""Models of published sizes with random weights: their memory and seconds are those of real ones.

What an image shows does not matter here. T5 is left out, as SD_T5=false does; the tokenizers are
those of the demo model. The tiny kinds are for tests.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from torch import nn

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.checkpoints.families import family_of
from runnables.parameters import Profile
from runnables.settings import EMBEDDED_MODEL

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
VAE_16 = {
    "latent_channels": 16,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
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
TINY_VAE = {
    **VAE,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
TINY_CLIP = {"intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


class Kind(NamedTuple):
    """A kind has the options of its components' configs."""

    denoiser: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], ...]


KINDS = {
    "sd15": Kind(
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, VAE, (CLIP_L,)
    ),
    "sdxl": Kind(UNET, {**VAE, "scaling_factor": 0.13025}, (CLIP_L, CLIP_G)),
    "sd-3-medium": Kind(TRANSFORMER, {**VAE, **VAE_16}, (CLIP_L, CLIP_G)),
    "sd35-medium": Kind(
        {
            **TRANSFORMER,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "dual_attention_layers": tuple(range(13)),
        },
        {**VAE, **VAE_16},
        (CLIP_L, CLIP_G),
    ),
    "tiny": Kind(
        {
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            "cross_attention_dim": 32,
            "norm_num_groups": 8,
            "layers_per_block": 1,
        },
        TINY_VAE,
        ({**TINY_CLIP, "hidden_size": 32},),
    ),
    "tiny-sd3": Kind(
        {
            **TRANSFORMER,
            "sample_size": 8,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "joint_attention_dim": 96,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 80,
            "pos_embed_max_size": 16,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0,),
        },
        {**TINY_VAE, **VAE_16},
        (
            {**TINY_CLIP, "hidden_size": 32, "projection_dim": 32},
            {**TINY_CLIP, "hidden_size": 48, "projection_dim": 48},
        ),
    ),
}


def build(kind: str, folder: Path) -> Path:
    """Write a model of a kind into `folder` in bf16, unless it is there, and return the folder."""
    if not (folder / "model_index.json").is_file():
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        try:
            pipeline_of(parts_of(kind)).save_pretrained(folder)
        except BaseException:  # half a model would be taken for a whole one
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            torch.set_default_dtype(before)
    return folder


def bare_pipeline(kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Return diffusers' pipeline of a model of this kind, on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        parts = parts_of(kind)
    for part in parts.values():
        part.to(dtype).eval().requires_grad_(False)
    pipeline = pipeline_of(parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def checkpoint(kind: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return a model of this kind as it is loaded, but on the device."""
    pipeline = bare_pipeline(kind, device, dtype)
    components, scheduler = pipeline.components, pipeline.scheduler
    return Checkpoint(
        name=kind,
        family=family_of({"_class_name": type(pipeline).__name__}),
        components={
            name: part
            for name, part in components.items()
            if part is not None and name != "scheduler"
        },
        scheduler_config={**scheduler.config, "_class_name": type(scheduler).__name__},
        profile=Profile(),
        config=dict(pipeline.config),
    )


def parts_of(kind: str) -> dict[str, nn.Module]:
    """Return the components that have weights."""
    denoiser, vae, text = KINDS[kind]
    flow = "joint_attention_dim" in denoiser
    parts: dict[str, nn.Module] = {
        "vae": diffusers.AutoencoderKL(**vae, force_upcast=False),
        "text_encoder": _clip(text[0], projected=flow),
    }
    if flow:
        parts["transformer"] = diffusers.SD3Transformer2DModel(**denoiser)
    else:
        parts["unet"] = diffusers.UNet2DConditionModel(**denoiser)
    if len(text) > 1:
        parts["text_encoder_2"] = _clip(text[1], projected=True)
    return parts


def pipeline_of(parts: dict[str, nn.Module]) -> Any:
    """Return diffusers' pipeline around these components."""
    if "text_encoder_2" not in parts:
        return diffusers.StableDiffusionPipeline(
            **parts,
            tokenizer=_tokenizer(),
            scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    two = {**parts, "tokenizer": _tokenizer(), "tokenizer_2": _tokenizer()}
    if "unet" in parts:
        scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULER)
        return diffusers.StableDiffusionXLPipeline(
            **two, scheduler=scheduler, add_watermarker=False
        )
    return diffusers.StableDiffusion3Pipeline(
        **two,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _clip(options: dict[str, Any], *, projected: bool) -> nn.Module:
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    tokens = {"eos_token_id": _tokenizer().eos_token_id}
    module: nn.Module = kind(transformers.CLIPTextConfig(**options, **tokens))
    return module


def _tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(Path(EMBEDDED_MODEL) / "tokenizer")
