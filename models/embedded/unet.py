"""The UNet: noise prediction on cached latents, with the text encoder frozen."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import json
import random
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.embedded import draw
from models.embedded.run import DEVICE, Run
from models.embedded.text import TEXT_WIDTH, blur
from models.embedded.tokenizer import load_tokenizer, tokenize

#: (height, width) the pictures are drawn in; most are the native size
SIZES = [(128, 128)] * 6 + [(96, 128), (128, 96), (128, 192), (160, 160)]


def build_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@torch.no_grad()
def encode_pictures(out: Path, work: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Latents and captions of `count` pictures in groups of one size, drawn and encoded once."""
    path = work / f"latents-{count}.pt"
    if path.exists():
        cached: list[dict[str, Any]] = torch.load(path)
        return cached
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).to(DEVICE)
    groups: list[dict[str, Any]] = []
    for index in tqdm(range(count // 64), "latents"):
        rng = random.Random(f"latents {seed} {index}")
        size = rng.choice(SIZES)
        subjects = [draw.subject(rng, 0.35) for _ in range(64)]
        pixels = np.stack([draw.render(subject, rng, *size) for subject in subjects])
        batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1).to(DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            latents = vae.encode(batch).latent_dist.mean * vae.config.scaling_factor
        groups.append({"latents": latents.half().cpu(), "subjects": list(map(astuple, subjects))})
    torch.save(groups, path)
    return groups


def train_unet(out: Path, work: Path, steps: int, batch: int, pictures_: int, seed: int) -> None:
    """Noise prediction (arXiv:2006.11239) with min-SNR weights (arXiv:2303.09556)."""
    from diffusers import DDPMScheduler
    from transformers import CLIPTextModel

    groups = encode_pictures(out, work, pictures_, seed)
    tokenizer = load_tokenizer(out)
    text = (
        CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32).to(DEVICE).eval()
    )
    unet = build_unet().to(memory_format=torch.channels_last)
    alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(DEVICE)
    run = Run("unet", unet, work, steps, 1.2e-3, 0.9985)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"unet {seed} {step}")
        torch.manual_seed(rng.randrange(2**31))
        group = rng.choice(groups)
        chosen = [rng.randrange(64) for _ in range(batch)]
        latents = group["latents"][chosen].float().to(DEVICE)
        told = [draw.told(draw.Subject(*group["subjects"][i]), rng) for i in chosen]
        captions = [
            "" if rng.random() < 0.1 else _blur_lightly(draw.caption(subject, rng), rng)
            for subject in told
        ]
        with torch.no_grad():
            states = text(tokenize(tokenizer, captions).to(DEVICE))[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(chosen),), device=DEVICE)
        signal = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        predicted = unet(
            noisy.contiguous(memory_format=torch.channels_last), timesteps, states
        ).sample
        ratio = (alphas / (1 - alphas))[timesteps]
        weight = ratio.clamp(max=5.0) / ratio
        return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()

    run(loss_of)
    run.load_ema()
    save_pipeline(out, unet)


def _blur_lightly(caption: str, rng: random.Random) -> str:
    return blur(caption, rng) if rng.random() < 0.25 else caption


def save_pipeline(out: Path, unet: Any) -> None:
    """UNet, scheduler and model_index.json: the folder is a diffusers model from here on."""
    from diffusers import PNDMScheduler

    unet.to(torch.float16).save_pretrained(out / "unet")
    PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SCHEDULER).save_pretrained(
        out / "scheduler"
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_checkpoint(out: Path, work: Path) -> None:
    """Write the averaged weights of an unfinished UNet run."""
    unet = build_unet()
    like = unet.state_dict()
    ema = torch.load(work / "unet.pt", map_location="cpu")["ema"]
    unet.load_state_dict({k: v.to(like[k].dtype) for k, v in ema.items()})
    save_pipeline(out, unet)
