"""A tiny Swin2SR model with random weights, in transformers' layout."""

from __future__ import annotations

from pathlib import Path

import torch


def build(folder: Path, upscale: int = 2, upsampler: str = "pixelshuffledirect") -> Path:
    """Write one into `folder`, whose output varies with its input; returns the folder.

    A pixel of its output depends on those within 24 pixels of the input.
    """
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(
        image_size=64,
        embed_dim=12,
        depths=[2],
        num_heads=[2],
        window_size=8,
        upscale=upscale,
        upsampler=upsampler,
        mlp_ratio=2.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Swin2SRForImageSuperResolution(config)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.dim() > 1 and "logit" not in name:
                    weights.normal_(0, weights[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder
