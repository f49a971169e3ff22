"""Trains the embedded model: `python -m models.training.train --stage all`.

The stages are: the pictures (fetched and composed into a bank), the byte-pair tokenizer, the list
of known names, the autoencoder, the text encoder that learns what captions mean, the UNet that
denoises latents with the text encoder frozen, the decoder once more, and the manifest. Every stage
can be stopped and resumed. A GPU is used where there is one. On CPUs several processes of one
thread are fastest:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m models.training.train --stage vae
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from models.training import vocabulary
from models.training.bank import ENLARGED, LARGE, bank
from models.training.run import RANK, join
from models.training.text import train_text
from models.training.tokenizer import train_tokenizer
from models.training.unet import average, begin_again, save_checkpoint, train_unet
from models.training.vae import train_decoder, train_vae
from runnables.checkpoints import manifest

SOURCE = "models/training/train.py"
EMBEDDED = Path(__file__).parents[1] / "embedded"
STAGES = ("pictures", "tokenizer", "vocabulary", "vae", "text", "unet", "decoder", "manifest")


def main() -> None:
    """Run the stages that are chosen."""
    chosen = _parser().parse_args()
    out, work, seed, pictures = chosen.out, chosen.work, chosen.seed, chosen.pictures
    join()
    torch.manual_seed(seed)
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Callable[[], object]] = {
        "pictures": lambda: _compose(work, pictures, seed) if RANK == 0 else None,
        "tokenizer": lambda: train_tokenizer(out, work) if RANK == 0 else None,
        "vocabulary": lambda: vocabulary.write(out, work) if RANK == 0 else None,
        "vae": lambda: train_vae(out, work, chosen.vae_steps, pictures, seed),
        "text": lambda: train_text(out, work, chosen.text_steps, 64, seed),
        "unet": lambda: train_unet(out, work, chosen.unet_steps, chosen.batch, pictures, seed),
        "decoder": lambda: train_decoder(out, work, chosen.decoder_steps, pictures, seed),
        "manifest": lambda: manifest.write(out, source=SOURCE) if RANK == 0 else None,
        "save-unet": lambda: save_checkpoint(out, work),
        "begin-again": lambda: begin_again(out, work, chosen.unet_steps),
        "average": lambda: average(out, chosen.earlier, chosen.share),
    }
    for stage in STAGES if chosen.stage == "all" else [chosen.stage]:
        stages[stage]()


def _compose(work: Path, pictures: int, seed: int) -> None:
    bank(work, pictures, seed)
    bank(work, ENLARGED, seed, LARGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--stage",
        choices=[*STAGES, "all", "save-unet", "begin-again", "average"],
        default="all",
        help="save-unet writes the averaged weights of an unfinished UNet run; "
        "begin-again writes a checkpoint of the model folder's UNet, which --unet-steps have made; "
        "average mixes the UNet with that of an earlier model folder",
    )
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="model folder")
    parser.add_argument("--work", type=Path, default=Path("output.training"), help="checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=1000)
    parser.add_argument("--decoder-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=900)
    parser.add_argument("--unet-steps", type=int, default=5000)
    parser.add_argument("--earlier", type=Path, default=EMBEDDED, help="the folder for average")
    parser.add_argument("--share", type=float, default=0.2, help="the earlier UNet's share")
    parser.add_argument("--pictures", type=int, default=48_000, help="pictures in the bank")
    parser.add_argument("--batch", type=int, default=32, help="rows per UNet step")
    return parser


if __name__ == "__main__":
    main()
