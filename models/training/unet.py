"""The UNet: noise prediction on cached latents, with the text encoder frozen."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from models.training import draw
from models.training.bank import ENLARGED, LARGE, SIDE, bank
from models.training.canvas import Array
from models.training.concepts import concepts, keywords
from models.training.run import DEVICE, PROCESSES, RANK, Run, join
from models.training.subject import Subject
from models.training.text import TEXT_WIDTH, blur, shortened
from models.training.tokenizer import load_tokenizer, tokenize
from models.training.vae import LATENTS, to_tensor

ENCODED = 48_000  # pictures of the bank that the UNet sees
#: Every so many steps the pictures have twice the side. A UNet that has never seen such pictures
#: shows a thing several times in an image of that size.
LARGE_EVERY = 5
#: The steps in which common things are chosen most, and how often they are chosen, compared with
#: the others, in these steps and after them.
COMMON_FIRST, COMMON, COMMON_LATER = 12_500, 8.0, 0.5
#: Flat drawings are chosen so often, compared with pictures in 3D, up to this step and after it.
FLAT_FIRST, FLAT, FLAT_LATER = 22_000, 0.15, 3.0
SHARES = {"thing": 0.84, "scene": 0.09, "shape": 0.07}  # of what the UNet sees
GROUP = 32  # pictures encoded at a time


def build_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENTS,
        out_channels=LATENTS,
        layers_per_block=1,
        block_out_channels=(96, 128, 192),
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


def encode_pictures(
    out: Path, work: Path, pictures: int, seed: int, side: int = SIDE
) -> tuple[Tensor, list[Subject]]:
    """Latents of the first pictures of a bank, encoded once, and what each picture shows."""
    join()
    stored, subjects = bank(work, pictures, seed, side)
    count = min(ENCODED, pictures) // GROUP * GROUP
    path = work / (f"latents-{count}.npy" if side == SIDE else f"latents-{count}-{side}.npy")
    if not path.exists():
        mine = _encode(out, stored, range(RANK * GROUP, count, PROCESSES * GROUP))
        parts: list[Any] = [mine]
        if PROCESSES > 1:
            parts = [None] * PROCESSES
            dist.all_gather_object(parts, mine)
        if RANK == 0:
            groups = {first: latents for part in parts for first, latents in part.items()}
            np.save(path, np.concatenate([groups[first] for first in sorted(groups)]))
        if PROCESSES > 1:
            dist.barrier()
    return torch.from_numpy(np.load(path)), subjects[:count]


@torch.no_grad()
def _encode(out: Path, stored: Array, firsts: range) -> dict[int, Array]:
    """Scaled latents in half precision of the groups that begin at these pictures."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).to(DEVICE)
    vae = vae.to(memory_format=torch.channels_last)
    found = {}
    for first in tqdm(firsts, "latents", mininterval=10, disable=RANK > 0):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            mean = vae.encode(to_tensor(stored[first : first + GROUP])).latent_dist.mean
        found[first] = (mean.float() * vae.config.scaling_factor).half().cpu().numpy()
    return found


def train_unet(out: Path, work: Path, steps: int, batch: int, pictures: int, seed: int) -> None:
    """Noise prediction (arXiv:2006.11239) with min-SNR weights (arXiv:2303.09556)."""
    from diffusers import DDPMScheduler
    from diffusers.models.attention_processor import AttnProcessor
    from transformers import CLIPTextModel

    banks = [
        encode_pictures(out, work, pictures, seed),
        encode_pictures(out, work, ENLARGED, seed, LARGE),
    ]
    weights = {
        chosen: [list(accumulate(_weights(subjects, *chosen))) for _, subjects in banks]
        for chosen in {_chosen_at(step) for step in (0, COMMON_FIRST, FLAT_FIRST)}
    }
    words = keywords(work)
    tokenizer = load_tokenizer(out)
    text = (
        CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32).to(DEVICE).eval()
    )
    unet = build_unet().to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # a fifth faster than the fused one on a CPU
    alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(DEVICE)
    run = Run("unet", unet, work, steps, 1.0e-3, 0.998)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"unet {seed} {step} {RANK}")
        torch.manual_seed(rng.randrange(2**31))
        large = step % LARGE_EVERY == 0
        (latents, subjects), rows = banks[large], batch // PROCESSES // (4 if large else 1)
        chosen = rng.choices(
            range(len(subjects)), cum_weights=weights[_chosen_at(step)][large], k=rows
        )
        clean = latents[chosen].float().to(DEVICE)
        told = [draw.told(subjects[index], rng) for index in chosen]
        captions = [
            "" if rng.random() < 0.1 else _blur_lightly(draw.caption(subject, rng, words), rng)
            for subject in told
        ]
        ids = tokenize(tokenizer, captions).to(DEVICE)
        if rng.random() < 0.6:
            ids = shortened(ids)
        with torch.no_grad():
            states = text(ids)[0]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(chosen),), device=DEVICE)
        signal = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        predicted = unet(
            noisy.contiguous(memory_format=torch.channels_last), timesteps, states
        ).sample
        ratio = (alphas / (1 - alphas))[timesteps]
        weight = ratio.clamp(max=5.0) / ratio
        return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()

    run(loss_of)
    if RANK == 0:
        run.load_ema()
        save_pipeline(out, unet)


def _chosen_at(step: int) -> tuple[float, float]:
    """Return how often common things and flat drawings are chosen, compared with the others."""
    common = COMMON if step < COMMON_FIRST else COMMON_LATER
    return common, FLAT if step < FLAT_FIRST else FLAT_LATER


def _weights(subjects: list[Subject], common: float, flat: float) -> list[float]:
    """Return how often each picture is chosen: things in the middle most of all."""
    known = concepts()
    raw = []
    for one in subjects:
        weight = common if one.thing and known[one.thing].common else 1.0
        weight *= flat if one.style == "flat" else 1.0
        weight *= 0.6 if one.thing and (one.place or one.size) else 1.0
        raw.append(weight * (0.2 if one.other else 1.0))
    kinds = ["thing" if one.thing else "scene" if one.scene else "shape" for one in subjects]
    total = {kind: sum(w for w, k in zip(raw, kinds, strict=True) if k == kind) for kind in SHARES}
    return [SHARES[k] * w / total[k] for w, k in zip(raw, kinds, strict=True)]


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


def begin_again(out: Path, work: Path, step: int) -> None:
    """Write a checkpoint of the model folder's UNet, which `step` steps have made.

    So a run goes on whose work folder is gone. The optimiser begins with nothing.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(out / "unet", torch_dtype=torch.float32)
    run = Run("unet", unet, work, step, 1.0e-3, 0.998)
    run.step = step
    run.save()


def average(out: Path, earlier: Path, share: float) -> None:
    """Mix the UNet with that of an earlier model folder, which has this share of the weights.

    Weights of one run may be averaged where they lie in the same basin (arXiv:2203.05482). The
    earlier ones are sharper on common things, the later ones know seldom things and larger sizes.
    """
    from safetensors.torch import load_file

    later, before = (
        load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
        for folder in (out, earlier)
    )
    unet = build_unet()
    unet.load_state_dict(
        {name: torch.lerp(later[name].float(), before[name].float(), share) for name in later}
    )
    save_pipeline(out, unet)
