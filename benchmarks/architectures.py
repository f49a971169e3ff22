"""Models with random weights have the speed of trained ones, at full or tiny size.

Sizes are those of the published configs of Stable Diffusion 1.5, Stable Diffusion XL base 1.0 and
Stable Diffusion 3.5 Medium, whose T5 is left out.
"""

from __future__ import annotations

import string
from typing import Any

import torch

from runnables.checkpoints.loading import Checkpoint
from runnables.parameters import Profile

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
    "tiny": {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "layers_per_block": 1,
    },
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd35-medium": {
        "sample_size": 128,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "qk_norm": "rms_norm",
        "dual_attention_layers": tuple(range(13)),
    },
    "tiny-sd3": {
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
}
#: hidden size, intermediate size, layers, heads, activation
TEXT = {
    "sd15": [(768, 3072, 12, 12, "quick_gelu")],
    "sdxl": [(768, 3072, 12, 12, "quick_gelu"), (1280, 5120, 32, 20, "gelu")],
    "sd35-medium": [(768, 3072, 12, 12, "quick_gelu"), (1280, 5120, 32, 20, "gelu")],
    "tiny": [(32, 64, 2, 4, "quick_gelu")],
    "tiny-sd3": [(32, 64, 3, 4, "quick_gelu"), (48, 64, 3, 4, "gelu")],
}
_SD3_VAE = {
    "latent_channels": 16,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
VAES: dict[str, dict[str, Any]] = {
    "sd15": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "sdxl": {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "scaling_factor": 0.13025,
    },
    "sd35-medium": {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        **_SD3_VAE,
    },
    "tiny": {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 8},
    "tiny-sd3": {
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        **_SD3_VAE,
    },
}
FLOW_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def build(name: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return a checkpoint of this architecture with random weights, on the device."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    flow = name in TRANSFORMERS
    with torch.device(device):
        denoiser = _denoiser(name)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            force_upcast=False,
            **VAES[name],
        )
        encoders = [_text_encoder(sizes, flow or i == 1) for i, sizes in enumerate(TEXT[name])]
    for module in (denoiser, vae, *encoders):
        module.to(dtype).eval().requires_grad_(False)
    two = "stable-diffusion-xl" if len(encoders) == 2 else "stable-diffusion"
    return Checkpoint(
        name=name,
        family="stable-diffusion-3" if flow else two,
        components={
            "transformer" if flow else "unet": denoiser,
            "vae": vae,
            **_text_parts(encoders),
        },
        scheduler_config=FLOW_SCHEDULER if flow else SCHEDULER,
        profile=Profile(),
        config={"force_zeros_for_empty_prompt": True},
    )


def _denoiser(name: str) -> Any:
    from diffusers import SD3Transformer2DModel, UNet2DConditionModel

    if name in TRANSFORMERS:
        shape = {"patch_size": 2, "in_channels": 16, "out_channels": 16}
        return SD3Transformer2DModel(**shape, **TRANSFORMERS[name])
    return UNet2DConditionModel(**{"sample_size": 64, **UNETS[name]})


def _text_parts(encoders: list[Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for number, encoder in zip(("", "_2"), encoders, strict=False):
        parts |= {f"text_encoder{number}": encoder, f"tokenizer{number}": _tokenizer()}
    return parts


def bare_pipeline(checkpoint: Checkpoint) -> Any:
    """Return diffusers' own pipeline around the same modules."""
    import diffusers

    if checkpoint.family == "stable-diffusion-3":
        pipeline = _bare_sd3(checkpoint)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
    shared = {
        "vae": checkpoint.vae,
        "unet": checkpoint.unet,
        "scheduler": diffusers.EulerDiscreteScheduler.from_config(checkpoint.scheduler_config),
        "text_encoder": checkpoint.text_encoders[0],
        "tokenizer": checkpoint.tokenizers[0],
    }
    if checkpoint.family == "stable-diffusion-xl":
        pipeline = diffusers.StableDiffusionXLPipeline(
            **shared,
            text_encoder_2=checkpoint.text_encoders[1],
            tokenizer_2=checkpoint.tokenizers[1],
            add_watermarker=False,
        )
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **shared,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _bare_sd3(checkpoint: Checkpoint) -> Any:
    import diffusers

    return diffusers.StableDiffusion3Pipeline(
        transformer=checkpoint.denoiser,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_config(
            checkpoint.scheduler_config
        ),
        vae=checkpoint.vae,
        text_encoder=checkpoint.text_encoders[0],
        tokenizer=checkpoint.tokenizers[0],
        text_encoder_2=checkpoint.text_encoders[1],
        tokenizer_2=checkpoint.tokenizers[1],
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _text_encoder(sizes: tuple[int, int, int, int, str], projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    hidden, intermediate, layers, heads, activation = sizes
    vocabulary = len(_vocabulary())
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=hidden,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _vocabulary() -> dict[str, int]:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    return {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=_vocabulary(), merges=[], unk_token="<|endoftext|>", model_max_length=77
    )
