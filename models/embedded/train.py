"""Trains the embedded model: `python -m models.embedded.train --stage all`.

Four stages, each resumable from its checkpoint in --work and each writing its part of a diffusers
folder to --out: a byte-pair tokenizer on our captions, an autoencoder, a CLIP text encoder that
learns to tell what a caption says, and the UNet that denoises latents with the text encoder frozen.
The defaults are those of the weights in this folder: about an hour on two CPU cores. A GPU is used
where there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from models.embedded.text import train_text
from models.embedded.tokenizer import train_tokenizer
from models.embedded.unet import save_checkpoint, train_unet
from models.embedded.vae import train_vae

STAGES = ("tokenizer", "vae", "text", "unet")


def main() -> None:
    """Run the stages that were asked for."""
    chosen = _parser().parse_args()
    out, work, seed = chosen.out, chosen.work, chosen.seed
    torch.manual_seed(seed)
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Callable[[], None]] = {
        "tokenizer": lambda: train_tokenizer(out),
        "vae": lambda: train_vae(out, work, chosen.vae_steps, 16, seed),
        "text": lambda: train_text(out, work, chosen.text_steps, 96, seed),
        "unet": lambda: train_unet(
            out, work, chosen.unet_steps, chosen.batch, chosen.pictures, seed
        ),
        "save-unet": lambda: save_checkpoint(out, work),
    }
    for stage in STAGES if chosen.stage == "all" else [chosen.stage]:
        stages[stage]()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--stage",
        choices=[*STAGES, "all", "save-unet"],
        default="all",
        help="save-unet writes the averaged weights of an unfinished UNet run",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="model folder")
    parser.add_argument("--work", type=Path, default=Path("output.training"), help="checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=900)
    parser.add_argument("--text-steps", type=int, default=700)
    parser.add_argument("--unet-steps", type=int, default=3600)
    parser.add_argument("--pictures", type=int, default=24_000, help="encoded for the UNet")
    parser.add_argument("--batch", type=int, default=32, help="rows a UNet step")
    return parser


if __name__ == "__main__":
    main()
