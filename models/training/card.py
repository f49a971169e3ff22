"""Writes the model card, README.md, from figures.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
COLUMNS = ("foreground", "background", "shape", "scene")

TEMPLATE = """# The embedded model

A latent diffusion model of {size:.1f} MB in Stable Diffusion's own layout (CLIP text encoder, UNet,
AutoencoderKL), trained from nothing by the scripts in this folder on pictures they draw themselves.
It knows a small world: {shapes} in {colours} on a background of another of
these colours, small or large, left, right, top or bottom; and scenes: {scenes}. Any prompt works,
words it does not know are passed over. Native size is 128x128; other sizes near it work too.

![Samples](samples.png)

## Measured

{prompts} prompts not used in training, {steps} steps, guidance {guidance:g}, through diffusers' own
pipeline. A picture counts as right in colour when most pixels of the place in question are nearest
to the colour asked for; in shape and scene when a classifier says so that was trained on drawn
pictures only (its own accuracy on unseen drawn pictures: {classifier:.1%}).

| sampler | foreground colour | background colour | shape | scene |
|---|---|---|---|---|
{rows}

{effects}

An image of {steps} steps with guidance takes {seconds:.2f} s on 2 CPU cores ({weather}).

## How it was made

`python -m models.training.train` with its default settings, in about an hour of two CPU cores:

1. A byte-pair tokenizer of about 900 tokens in CLIP's format, from the captions.
2. The autoencoder, 1.0 M parameters, 900 steps of 16 pictures. It starts as a plain resampler
   (identity initialisation), without which colours took several times as long.
3. The text encoder, 3 layers of 128, 700 steps: it learns to tell shape, colours, size, place and
   scene of a caption, then it is frozen, so that the UNet is told in a form it can read at once.
4. The UNet, {unet:.1f} M parameters, {unet_steps:,} steps of 32 latents: noise prediction with
   min-SNR weights, 10% empty captions, averaged weights. Stored in half precision.

`python -m models.training.evaluate` measures it again and rewrites this page.

## Limits

It cannot draw anything outside its world, fine detail is soft (its autoencoder is tiny), and two
objects in one prompt are not understood. It is meant for trying the service and for testing it.

Licence: Apache-2.0, as this repository. No third party's data or weights were used.
"""


def write(folder: Path = FOLDER, *, weather: str = "") -> None:
    """Render the card beside the figures."""
    from models.training import draw

    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    samplers = figures["samplers"].items()
    rows = [
        f"| {name} | " + " | ".join(f"{row[c]:.1%}" for c in COLUMNS) + " |"
        for name, row in samplers
    ]
    effects = [f"- {name}: {value:.2f}" for name, value in figures.get("effects", {}).items()]
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    unet = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size / 2e6
    text = TEMPLATE.format(
        size=size,
        shapes=", ".join(f"{name}s" for name in draw.SHAPES),
        colours=", ".join(draw.COLOURS),
        scenes=", ".join(draw.SCENES),
        prompts=figures["prompts"],
        steps=figures["steps"],
        guidance=figures["guidance"],
        classifier=figures["classifier"],
        rows="\n".join(rows),
        effects="\n".join(effects),
        seconds=figures["seconds an image"],
        weather=weather or "as the evaluation found them",
        unet=unet,
        unet_steps=figures["unet steps"],
    )
    (folder / "README.md").write_text(text)


if __name__ == "__main__":
    write()
