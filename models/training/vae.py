"""The autoencoder: 128x128 pictures to 16x16 latents of eight channels."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.bank import SIDE, bank
from models.training.canvas import Array
from models.training.run import DEVICE, RANK, Run

LATENTS = 8  # channels of the latents
NOISE = 0.08  # added to latents in training, so that small errors of the UNet do no harm


def build_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENTS,
        sample_size=128,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False,
        force_upcast=False,
    )


@torch.no_grad()
def start_as_resampler(vae: Any) -> None:
    """Begin as a network that shrinks the picture to its latents and enlarges it again.

    Colours then pass from the first step on. Channels 0-2 carry red, green and blue, 3-5 their
    negatives (silu(x) - silu(-x) = x) and 6 is constant, so that group norms keep the scale.
    """
    for module in vae.modules():
        _pass_through(module)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        conv.weight[:7] = 0
        conv.bias[6] = 1.0
        for colour in range(3):
            conv.weight[colour, colour, 1, 1] = 1.0
            conv.weight[colour + 3, colour, 1, 1] = -1.0
    for conv in (vae.encoder.conv_out, vae.decoder.conv_out):
        _fade(conv, 0.1)
        for colour in range(3):
            conv.weight[colour, colour, 1, 1] = 1.0
            conv.weight[colour, colour + 3, 1, 1] = -1.0
    for conv in (vae.quant_conv, vae.post_quant_conv):
        _fade(conv, 0.1)
        _pass(conv, range(LATENTS))


def _pass_through(module: nn.Module) -> None:
    """Residual blocks do little, and resampling does nothing but that."""
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    if isinstance(module, ResnetBlock2D):
        _fade(module.conv2, 0.1)
        if module.conv_shortcut is not None:
            _fade(module.conv_shortcut, 0.1)
            _pass(module.conv_shortcut, range(min(module.conv_shortcut.weight.shape[:2])))
    elif isinstance(module, Downsample2D):
        _fade(module.conv, 0.1)
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            _pass(module.conv, range(module.conv.weight.shape[0]), 0.25, row, column)
    elif isinstance(module, Upsample2D):
        _fade(module.conv, 0.1)
        _pass(module.conv, range(module.conv.weight.shape[0]))


def _fade(conv: Any, factor: float) -> None:
    conv.weight.mul_(factor)
    conv.bias.mul_(0)


def _pass(conv: Any, channels: range, weight: float = 1.0, row: int = -1, column: int = -1) -> None:
    """Let channels through at one tap of the kernel, by default its centre."""
    middle = conv.weight.shape[-1] // 2
    for channel in channels:
        conv.weight[
            channel, channel, row if row >= 0 else middle, column if column >= 0 else middle
        ] = weight


def train_vae(out: Path, work: Path, steps: int, pictures: int, seed: int) -> None:
    """L1 on pixels and on their gradients (sharp edges), through lightly noised latents.

    Most steps see crops of a quarter of the picture, four times as many for the same work; the
    last see whole pictures. The posterior is trained as a point with a little fixed noise: sampling
    it from the start, at unit variance, drowns what few steps can learn.
    """
    stored, _ = bank(work, pictures, seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    start_as_resampler(vae)
    run = Run("vae", vae, work, steps, 2e-3, 0.998)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"vae {seed} {step} {RANK}")
        torch.manual_seed(rng.randrange(2**31))
        whole = step > 0.85 * steps
        pixels = crops(stored, rng, 4 if whole else 16, SIDE if whole else SIDE // 2)
        latents = vae.encode(pixels).latent_dist.mean
        noisy = latents + NOISE * torch.randn_like(latents)
        decoded = vae.decode(noisy).sample.float()
        return reconstruction(decoded, pixels) + 1e-3 * latents.float().square().mean()

    run(loss_of)
    if RANK == 0:
        save_vae(vae, run, out, stored)


def train_decoder(out: Path, work: Path, steps: int, pictures: int, seed: int) -> None:
    """Train the decoder further with the encoder as it is, so that the latents stay the same.

    This may go on while the UNet is trained.
    """
    stored, _ = bank(work, pictures, seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    vae.load_state_dict(torch.load(work / "vae.pt", map_location="cpu")["ema"])
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    run = Run("decoder", vae, work, steps, 1.2e-3, 0.998, fall=0.5)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"decoder {seed} {step} {RANK}")
        torch.manual_seed(rng.randrange(2**31))
        whole = rng.random() < 0.2
        pixels = crops(stored, rng, 4 if whole else 16, SIDE if whole else SIDE // 2)
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
        decoded = vae.decode(latents + NOISE * torch.randn_like(latents)).sample.float()
        return reconstruction(decoded, pixels)

    run(loss_of)
    if RANK == 0:
        save_vae(vae, run, out, stored)


def save_vae(vae: Any, run: Run, out: Path, stored: Array) -> None:
    """Write the averaged weights in half precision, with the scale of the latents."""
    run.load_ema()
    _sharpen(vae)
    vae.register_to_config(scaling_factor=_latent_scale(vae, stored))
    vae.to(torch.float16).save_pretrained(out / "vae")


def crops(stored: Array, rng: random.Random, count: int, side: int) -> Tensor:
    """(count, 3, side, side) in -1..1: parts of pictures, most on the 8-pixel grid."""
    parts = []
    for _ in range(count):
        cell = 1 if rng.random() < 0.15 else 8
        y, x = (cell * rng.randint(0, (SIDE - side) // cell) for _ in range(2))
        parts.append(stored[rng.randrange(len(stored)), y : y + side, x : x + side])
    return to_tensor(np.stack(parts))


def to_tensor(pixels: Array) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in -1..1 on the device."""
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(DEVICE)
    return tensor.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1


def _sharpen(vae: Any) -> None:
    """Give the posterior the small fixed variance it was trained with."""
    with torch.no_grad():
        vae.quant_conv.weight[LATENTS:] = 0
        vae.quant_conv.bias[LATENTS:] = 2 * np.log(NOISE / 4)


def reconstruction(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 of values and of horizontal and vertical differences, and squared error."""
    loss = F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels)
    for dim in (2, 3):
        loss = loss + F.l1_loss(decoded.diff(dim=dim), pixels.diff(dim=dim))
    return loss


@torch.no_grad()
def _latent_scale(vae: Any, stored: Array) -> float:
    latents = [
        vae.encode(to_tensor(stored[first : first + 32])).latent_dist.mean
        for first in range(0, 256, 32)
    ]
    return round(1 / torch.cat(latents).std().item(), 5)
