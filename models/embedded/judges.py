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
    """(N, 3, 128, 128) in 0..1 -> (N, classes) logits, judged at half the size."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for inside, outside in ((3, 32), (32, 48), (48, 64), (64, 64)):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, len(CLASSES)))


def label(subject: Subject) -> int:
    return CLASSES.index(subject.scene or subject.shape)


def drawn(rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
    """Drawn pictures (count, 3, 128, 128) and their classes."""
    subjects = [draw.subject(rng, 0.4) for _ in range(count)]
    pixels = np.stack([draw.render(subject, rng) for subject in subjects])
    classes = torch.tensor([label(subject) for subject in subjects])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), classes


def disturbed(pixels: Tensor) -> Tensor:
    """A little noise, and for every other picture soft edges as an autoencoder leaves them."""
    soft = F.interpolate(F.avg_pool2d(pixels, 4), scale_factor=4.0, mode="bilinear")
    chosen = torch.rand(len(pixels), 1, 1, 1) < 0.5
    return torch.where(chosen, soft, pixels) + 0.03 * torch.randn_like(pixels)


def train_classifier(pictures: int = 6000, epochs: int = 8) -> tuple[Classifier, float]:
    """The classifier, and its accuracy on drawn pictures it has not seen."""
    torch.manual_seed(0)
    pixels, classes = drawn(random.Random("classifier"), pictures)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters())
    steps = epochs * (pictures // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    for _ in tqdm(range(epochs), "classifier"):
        for batch in torch.randperm(pictures).split(64)[: pictures // 64]:
            loss = F.cross_entropy(classifier(disturbed(pixels[batch])), classes[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    classifier.eval()
    with torch.inference_mode():
        pixels, classes = drawn(random.Random(f"{HELD_OUT} classifier"), 400)
        accuracy = (classifier(disturbed(pixels)).argmax(1) == classes).float().mean().item()
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
