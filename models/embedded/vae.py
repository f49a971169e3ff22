"""The autoencoder: 128x128 pictures to 16x16 latents of four channels."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.embedded import draw
from models.embedded.run import DEVICE, Run


def pictures(rng: random.Random, count: int, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """(count, 3, H, W) in -1..1 and their captions."""
    subjects = [draw.subject(rng) for _ in range(count)]
    pixels = np.stack([draw.render(subject, rng, *size) for subject in subjects])
    captions = [draw.caption(subject, rng) for subject in subjects]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1, captions


def build_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=128,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
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
        _pass(conv, range(4))


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


def train_vae(out: Path, work: Path, steps: int, batch: int, seed: int) -> None:
    """L1 on pixels and on their gradients (sharp edges), through lightly noised latents.

    The posterior is trained as a point with a little fixed noise: sampling it from the start, at
    unit variance, drowns what few steps can learn.
    """
    vae = build_vae().to(memory_format=torch.channels_last)
    start_as_resampler(vae)
    run = Run("vae", vae, work, steps, 2e-3, 0.995)
    loader = _loader(VaePictures(seed, batch, run.step))

    def loss_of(step: int) -> Tensor:
        pixels = next(loader).to(DEVICE, memory_format=torch.channels_last)
        latents = vae.encode(pixels).latent_dist.mean
        noisy = latents + 0.03 * torch.randn_like(latents)
        decoded = vae.decode(noisy).sample.float()
        return reconstruction(decoded, pixels) + 1e-3 * latents.float().square().mean()

    run(loss_of)
    run.load_ema()
    _sharpen(vae)
    vae.register_to_config(scaling_factor=_latent_scale(vae, seed))
    vae.to(torch.float16).save_pretrained(out / "vae")


def _sharpen(vae: Any) -> None:
    """Give the posterior the small fixed variance it was trained with."""
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = 2 * np.log(0.03)


def reconstruction(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 of values and of horizontal and vertical differences."""
    loss = F.l1_loss(decoded, pixels)
    for dim in (2, 3):
        loss = loss + F.l1_loss(decoded.diff(dim=dim), pixels.diff(dim=dim))
    return loss


class VaePictures(torch.utils.data.IterableDataset[Tensor]):
    """Endless batches of pictures; scenes are over-represented, they are harder."""

    def __init__(self, seed: int, batch: int, start: int) -> None:
        self.seed, self.batch, self.start = seed, batch, start

    def __iter__(self) -> Iterator[Tensor]:
        step = self.start
        while True:
            rng = random.Random(f"vae {self.seed} {step}")
            kinds = [draw.subject(rng, 0.6) for _ in range(self.batch)]
            pixels = np.stack([draw.render(subject, rng) for subject in kinds])
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1
            step += 1


def _loader(dataset: Any) -> Iterator[Any]:
    return iter(
        torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)
    )


@torch.no_grad()
def _latent_scale(vae: Any, seed: int) -> float:
    pixels, _ = pictures(random.Random(seed + 1), 256, (128, 128))
    latents = torch.cat([vae.encode(part.to(DEVICE)).latent_dist.mean for part in pixels.split(32)])
    return round(1 / latents.std().item(), 5)
