"""Judges of pictures: colours by the nearest of the eight, everything else by a classifier.

The classifier is trained apart from the model, on composed pictures only.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import draw
from models.training.canvas import Array
from models.training.concepts import concepts
from models.training.run import RANK, Run
from models.training.subject import Subject

CLASSES = [*draw.SHAPES, *draw.SCENES, *concepts()]
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
        for inside, outside in ((3, 32), (32, 64), (64, 128), (128, 192)):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(192 * 16, 256), nn.ReLU()]
        super().__init__(*layers, nn.Linear(256, len(CLASSES)))


def label(subject: Subject) -> int:
    """The class of a picture: its thing, its shape, or else its scene."""
    return CLASSES.index(subject.thing or subject.shape or subject.scene)


def disturbed(pixels: Tensor) -> Tensor:
    """A little noise, and for every other picture soft edges as an autoencoder leaves them."""
    soft = F.interpolate(F.avg_pool2d(pixels, 4), scale_factor=4.0, mode="bilinear")
    chosen = torch.rand(len(pixels), 1, 1, 1) < 0.4
    return torch.where(chosen, soft, pixels) + 0.03 * torch.randn_like(pixels)


def to_unit(pixels: Array) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in 0..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def train_classifier(
    pictures: Array, subjects: list[Subject], work: Path, steps: int, batch: int = 64
) -> Classifier:
    """The classifier, trained on those pictures that show one thing, one shape, or a scene."""
    single = [index for index, one in enumerate(subjects) if not one.other]
    classes = torch.tensor([label(one) for one in subjects])
    torch.manual_seed(0)
    classifier = Classifier()
    run = Run("classifier", classifier, work, steps, 2e-3, 0.99, fall=0.5)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"classifier {step} {RANK}")
        torch.manual_seed(rng.randrange(2**31))
        chosen = rng.choices(single, k=batch)
        logits = classifier(disturbed(to_unit(pictures[chosen])))
        return F.cross_entropy(logits.float(), classes[chosen], label_smoothing=0.05)

    if run.step < steps:
        run(loss_of, every=200)
    return classifier.eval()


@torch.inference_mode()
def ranks(pictures: Tensor, wanted: list[int], classifier: Classifier) -> list[int]:
    """At which place, from 0, the classifier puts the wanted class of each picture."""
    logits = torch.cat([classifier(part) for part in pictures.split(64)])
    own = logits.gather(1, torch.tensor(wanted)[:, None])
    return [int(one) for one in (logits > own).sum(1)]


def accuracy(pictures: Array, subjects: list[Subject], classifier: Classifier) -> float:
    """Return how often the classifier is right about composed pictures that it has not seen."""
    chosen = [index for index, one in enumerate(subjects) if not one.other]
    wanted = [label(subjects[index]) for index in chosen]
    places = ranks(to_unit(pictures[chosen]), wanted, classifier)
    return float(np.mean([place == 0 for place in places]))


def judge(
    pictures: Array, subjects: list[Subject], classifier: Classifier
) -> dict[str, list[bool]]:
    """Right or wrong, picture by picture."""
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    places = ranks(tensor, [label(one) for one in subjects], classifier)
    names = ("foreground", "background", "shape", "scene", "thing", "thing in five")
    right: dict[str, list[bool]] = {name: [] for name in names}
    for picture, subject, place in zip(pictures, subjects, places, strict=True):
        if subject.thing:
            right["thing"].append(place == 0)
            right["thing in five"].append(place < 5)
        elif subject.scene:
            right["scene"].append(place == 0)
        else:
            colour, background = colours_of(picture, subject)
            right["foreground"].append(colour == subject.colour)
            right["background"].append(background == subject.background)
            right["shape"].append(place == 0)
    return {name: values for name, values in right.items() if values}
