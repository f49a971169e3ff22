"""What a picture shows: colours by the nearest of the eight, shape and scene by a classifier."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from models.embedded import draw
from models.embedded.canvas import Array
from models.embedded.draw import Subject

CLASSES = [*draw.SHAPES, *draw.SCENES]
HELD_OUT = "held out"  # no training seed is a string that begins so


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
