"""Writes the model card, README.md, from figures.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "embedded"
COLUMNS = {
    "thing": "thing",
    "thing in five": "thing among the first five",
    "foreground": "foreground colour",
    "background": "background colour",
    "shape": "shape",
    "scene": "scene",
}

TEMPLATE = """# The embedded model

A latent diffusion model of {size:.1f} MB in Stable Diffusion's own layout (CLIP text encoder, UNet,
AutoencoderKL), trained from nothing on CPUs by [models/training](../training/README.md). It knows
{things} things by name and by synonyms: animals, food, vehicles, buildings, objects, faces, people.
A thing may be small or large, left, right, at the top or the bottom, on a coloured background or in
one of {scene_count} scenes: {scenes}. It also knows {shapes} in {colours}. It ignores words
that it does not know. Native size is 128x128; it was also trained on pictures of 256x256.

![Samples](samples.png)

The 48 prompts of this sheet, row by row: {everyday}.
{seen}
## Measured

{prompts} prompts that were not used in training, {steps} steps, guidance {guidance:g}, through
diffusers' own pipeline. Colours are judged by the pixels: most of them must be nearest to the
colour of the prompt. Everything else is judged by a classifier that was trained separately, on
composed pictures only. Its own accuracy on compositions that it has not seen is {classifier:.1%},
over {classes} classes.

| sampler | {head} |
|---|{rule}
{rows}

The captions above are of all kinds: small things, things at an edge, rare things. When only the
name is given ("a castle"), the {common[things]} common things are right in {common[thing]:.1%}
(among the first five: {common[thing in five]:.1%}), and all {every[things]} in {every[thing]:.1%}
({every[thing in five]:.1%}).

The autoencoder alone keeps a composition that it has not seen with a PSNR of {psnr:.1f} dB.

{effects}

An image of {steps} steps with guidance takes {seconds:.2f} s on 2 CPU cores.

## How it was made

`python -m models.training.train` in these stages:

1. A bank of 48,000 composed pictures: sprites over colours, gradients and scenes.
2. A byte-pair tokenizer in CLIP's format, from the captions.
3. The autoencoder, {vae:.1f} M parameters, eight latent channels.
4. The text encoder, 3 layers of 128: it learns to say which thing, shape, colours, size, place and
   scene a caption means, with synonyms; then it is frozen.
5. The UNet, {unet:.1f} M parameters: noise prediction with min-SNR weights, 10% empty captions,
   averaged weights. Stored in half precision.

{trained}

`python -m models.training.evaluate` measures it again and rewrites this page.

## Limits

It shows one drawing of each thing, as an icon on a background; it does not recolour things, and two
things in one prompt are often mixed up. Fine detail is soft. It is meant for trying the service and
for testing it.

## Licences and attribution

The weights are under Apache-2.0, as this repository. They were trained on pictures and words of
others, none of which are stored here:

| package | what | licence |
|---|---|---|
| `@lobehub/fluent-emoji-3d` | Fluent Emoji, 3D renders | MIT, Copyright (c) Microsoft Corporation |
| `@iconify-json/noto` | Noto Emoji, drawings | Apache-2.0, Copyright Google LLC |
| `emojilib` | keywords | MIT, Copyright (c) Mu-An Chiou |
"""


def write(folder: Path = FOLDER) -> None:
    """Render the card beside the figures."""
    from models.training import draw
    from models.training.concepts import concepts
    from models.training.everyday import EVERYDAY
    from models.training.judges import CLASSES

    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    rows = [
        f"| {name} | " + " | ".join(f"{row[column]:.1%}" for column in COLUMNS) + " |"
        for name, row in figures["samplers"].items()
    ]
    effects = [f"- {name}: {value:.2f}" for name, value in figures.get("effects", {}).items()]
    text = TEMPLATE.format(
        size=sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6,
        things=len(concepts()),
        scene_count=len(draw.SCENES),
        scenes=", ".join(draw.SCENES),
        shapes=", ".join(f"{name}s" for name in draw.SHAPES),
        colours=", ".join(draw.COLOURS),
        everyday=", ".join(EVERYDAY),
        seen=_paragraph(figures, "seen"),
        prompts=figures["prompts"],
        steps=figures["steps"],
        guidance=figures["guidance"],
        classifier=figures["classifier"],
        classes=len(CLASSES),
        head=" | ".join(COLUMNS.values()),
        rule="---|" * len(COLUMNS),
        rows="\n".join(rows),
        common=figures["by name"]["common"],
        every=figures["by name"]["all"],
        psnr=figures["psnr"],
        effects="\n".join(effects),
        seconds=figures["seconds an image"],
        vae=_parameters(folder / "vae"),
        unet=_parameters(folder / "unet"),
        trained=_paragraph(figures, "trained").strip(),
    )
    (folder / "README.md").write_text(text)


def _paragraph(figures: dict[str, Any], name: str) -> str:
    """A remark that a person added to figures.json, as a paragraph of its own."""
    remark = figures.get("remarks", {}).get(name, "")
    return f"\n{remark}\n" if remark else ""


def _parameters(folder: Path) -> float:
    """Millions of parameters, stored in half precision."""
    return (folder / "diffusion_pytorch_model.safetensors").stat().st_size / 2e6


if __name__ == "__main__":
    write()
