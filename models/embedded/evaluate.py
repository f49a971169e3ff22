"""Measures the embedded model: asked for against drawn. `python -m models.embedded.evaluate`.

Held-out prompts are drawn with three samplers through diffusers' own pipeline. Colours are judged
by the nearest of the eight, shape and scene by a small classifier that is trained here, on drawn
pictures only, and whose own accuracy on unseen drawn pictures is reported beside. Writes
figures.json, samples.png and the table of README.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from models.embedded import card, draw
from models.embedded.draw import Array, Subject

FOLDER = Path(__file__).parent
SAMPLERS = {
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
}
CLASSES = [*draw.SHAPES, *draw.SCENES]
STEPS, GUIDANCE = 20, 4.0
HELD_OUT = "held out"  # no training seed is a string that begins so


# -- judges ----------------------------------------------------------------------------------------


def nearest_colour(pixels: Array) -> str:
    """The name of the colour that most of these (N, 3) pixels are nearest to."""
    names = list(draw.COLOURS)
    palette = np.array([draw.COLOURS[name] for name in names])
    nearest = ((pixels[:, None] - palette) ** 2).sum(-1).argmin(1)
    return names[int(np.bincount(nearest, minlength=len(names)).argmax())]


def colours_of(picture: Array, subject: Subject) -> tuple[str, str]:
    """Foreground and background colour of an (H, W, 3) picture where the subject should be."""
    height, width, _ = picture.shape
    dx, dy = draw.PLACES[subject.place]
    y, x = round(height * (0.5 + dy)), round(width * (0.5 + dx))
    reach = max(2, round(0.25 * draw.SIZES[subject.size] * height))
    middle = picture[y - reach : y + reach, x - reach : x + reach].reshape(-1, 3)
    edge = np.concatenate(
        [
            picture[:6].reshape(-1, 3),
            picture[-6:].reshape(-1, 3),
            picture[:, :6].reshape(-1, 3),
            picture[:, -6:].reshape(-1, 3),
        ]
    )
    return nearest_colour(middle), nearest_colour(edge)


class Classifier(nn.Sequential):
    """(N, 3, 128, 128) in 0..1 -> (N, classes) logits."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inside, outside in ((3, 16), (16, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, len(CLASSES))
        )


def label(subject: Subject) -> int:
    return CLASSES.index(subject.scene or subject.shape)


def drawn(rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
    """Drawn pictures (count, 3, 128, 128), slightly disturbed, and their classes."""
    subjects = [draw.subject(rng, 0.5) for _ in range(count)]
    pixels = np.stack([draw.render(subject, rng) for subject in subjects])
    pixels = pixels + np.random.default_rng(rng.randrange(2**31)).normal(0, 0.03, pixels.shape)
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    return tensor, torch.tensor([label(subject) for subject in subjects])


def train_classifier(steps: int = 250) -> tuple[Classifier, float]:
    """The classifier, and its accuracy on drawn pictures it has not seen."""
    torch.manual_seed(0)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
    for step in tqdm(range(steps), "classifier"):
        pixels, wanted = drawn(random.Random(f"classifier {step}"), 48)
        loss = F.cross_entropy(classifier(pixels), wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    classifier.eval()
    with torch.inference_mode():
        pixels, wanted = drawn(random.Random(f"{HELD_OUT} classifier"), 400)
        accuracy = (classifier(pixels).argmax(1) == wanted).float().mean().item()
    return classifier, accuracy


# -- drawing ---------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def use(pipeline: Any, sampler: str) -> None:
    import diffusers

    kind = getattr(diffusers, SAMPLERS[sampler])
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)


def prompts(count: int) -> tuple[list[Subject], list[str]]:
    """Held-out subjects and captions: one half shapes, one half scenes."""
    rng = random.Random(f"{HELD_OUT} prompts")
    subjects = [draw.subject(rng, 0.0) for _ in range(count - count // 3)]
    scenes = list(draw.SCENES)
    subjects += [Subject(scene=scenes[i % len(scenes)]) for i in range(count // 3)]
    return subjects, [draw.caption(subject, rng) for subject in subjects]


def draw_all(pipeline: Any, captions: list[str], **options: Any) -> Array:
    """(N, H, W, 3) in 0..1, image i from seed i, 16 at a time."""
    call = {
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "output_type": "np",
        **options,
    }
    parts = []
    for first in range(0, len(captions), 16):
        part = captions[first : first + 16]
        seeds = [torch.Generator().manual_seed(first + i) for i in range(len(part))]
        extra = {}
        if isinstance(call.get("negative_prompt"), str):
            extra["negative_prompt"] = [call["negative_prompt"]] * len(part)
        parts.append(pipeline(prompt=part, generator=seeds, **{**call, **extra}).images)
    return np.concatenate(parts)


def judge(
    pictures: Array, subjects: list[Subject], classifier: Classifier
) -> dict[str, list[bool]]:
    """Right or wrong, picture by picture."""
    with torch.inference_mode():
        tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        classes = classifier(tensor).argmax(1).tolist()
    right: dict[str, list[bool]] = {k: [] for k in ("foreground", "background", "shape", "scene")}
    for picture, subject, chosen in zip(pictures, subjects, classes, strict=True):
        if subject.scene:
            right["scene"].append(CLASSES[chosen] == subject.scene)
            continue
        colour, background = colours_of(picture, subject)
        right["foreground"].append(colour == subject.colour)
        right["background"].append(background == subject.background)
        right["shape"].append(CLASSES[chosen] == subject.shape)
    return right


# -- effects ---------------------------------------------------------------------------------------


def effects(pipeline: Any) -> dict[str, float]:
    """What negative prompt, guidance and img2img strength do."""
    import diffusers

    use(pipeline, "ddim")
    plain = draw_all(pipeline, ["a circle"] * 16)
    against = draw_all(pipeline, ["a circle"] * 16, negative_prompt="red")
    asked = ["a red circle on a blue background"] * 16
    wanted = np.array(draw.COLOURS["red"])
    subject = Subject("circle", "red", "blue")
    right = {
        scale: np.mean(
            [
                colours_of(p, subject)[0] == "red"
                for p in draw_all(pipeline, asked, guidance_scale=scale)
            ]
        )
        for scale in (1.0, GUIDANCE)
    }
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components)
    image_to_image.set_progress_bar_config(disable=True)
    source = draw.render(Subject("square", "green", "white"), random.Random(0))
    picture = Image.fromarray((source * 255).astype(np.uint8))
    outcome = {}
    for strength in (0.2, 1.0):
        images = draw_all(image_to_image, asked, image=[picture] * 16, strength=strength)
        outcome[strength] = images
    kept = np.abs(outcome[0.2] - source).mean()
    changed = np.abs(outcome[1.0] - source).mean()
    follows = np.mean([colours_of(p, subject)[0] == "red" for p in outcome[1.0]])
    near = ((plain[:, 54:74, 54:74].mean((1, 2)) - wanted) ** 2).sum(-1).mean()
    far = ((against[:, 54:74, 54:74].mean((1, 2)) - wanted) ** 2).sum(-1).mean()
    return {
        "distance from red without a negative prompt": float(near),
        "distance from red with negative prompt red": float(far),
        "right colour at guidance 1": float(right[1.0]),
        f"right colour at guidance {GUIDANCE:g}": float(right[GUIDANCE]),
        "img2img change at strength 0.2": float(kept),
        "img2img change at strength 1.0": float(changed),
        "img2img follows the prompt at strength 1.0": float(follows),
    }


# -- report ----------------------------------------------------------------------------------------


def evaluate(folder: Path, count: int, only: list[str], unet_steps: int) -> dict[str, Any]:
    """All figures of the model card."""
    pipeline = load(folder)
    classifier, accuracy = train_classifier()
    subjects, captions = prompts(count)
    figures: dict[str, Any] = {
        "unet steps": unet_steps,
        "prompts": count,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "classifier": accuracy,
        "samplers": {},
    }
    for sampler in only:
        use(pipeline, sampler)
        right = judge(draw_all(pipeline, captions), subjects, classifier)
        figures["samplers"][sampler] = {k: float(np.mean(v)) for k, v in right.items()}
        print(sampler, figures["samplers"][sampler], flush=True)
    use(pipeline, "dpmpp_2m")
    started = time.perf_counter()
    for _ in range(3):
        pipeline("View of a cyberpunk city", num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    figures["seconds an image"] = (time.perf_counter() - started) / 3
    return figures


def samples(pipeline: Any, path: Path) -> None:
    """A grid of what newcomers will ask for."""
    use(pipeline, "dpmpp_2m")
    asked = [
        "View of a cyberpunk city",
        "snowy mountains",
        "a sailing boat on the sea",
        "sunset over the sea",
        "a forest",
        "starry sky",
        "desert with cactus",
        "city by day",
        "a red circle on a blue background",
        "a yellow star on a purple background",
        "a small green heart on a white background",
        "a large orange square on a black background",
        "a blue diamond on the left on a yellow background",
        "a white triangle on a red background",
        "a purple circle at the top on a green background",
        "a black star on an orange background",
    ]
    pictures = draw_all(pipeline, asked)
    grid = np.concatenate([np.concatenate(list(pictures[i : i + 8]), 1) for i in (0, 8)], 0)
    Image.fromarray((grid * 255).round().astype(np.uint8)).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--unet-steps", type=int, default=3600, help="told in the card")
    parser.add_argument("--no-effects", action="store_true", help="the table of samplers only")
    arguments = parser.parse_args()
    figures = evaluate(arguments.model, arguments.prompts, arguments.samplers, arguments.unet_steps)
    pipeline = load(arguments.model)
    samples(pipeline, arguments.model / "samples.png")
    if not arguments.no_effects:
        figures["effects"] = effects(pipeline)
    text = json.dumps(figures, indent=1)
    (arguments.model / "figures.json").write_text(text + "\n")
    card.write(arguments.model)
    print(text)


if __name__ == "__main__":
    main()
