"""A Bento and the configuration that it is deployed with: what does not fit is told."""

from __future__ import annotations

import pytest
import yaml

from sd_bentoctl.labels import mismatch
from tests.deploy.conftest import ROOT

GPU, NEURON = ("fp16", "nvidia"), ("bf16", "neuron")


def labels(name: str) -> dict[str, str]:
    """The labels of one of our bentofiles."""
    found: dict[str, str] = yaml.safe_load((ROOT / name).read_text())["labels"]
    return found


@pytest.mark.parametrize(
    ("bentofile", "need", "words"),
    [
        ("bentofile.fp16.yaml", GPU, ""),
        ("bentofile.fp16.yaml", ("bf16", "nvidia"), ""),
        ("bentofile.fp16.yaml", ("fp32", "nvidia"), "set precision: fp16"),
        ("bentofile.yaml", ("fp32", "nvidia"), ""),
        ("bentofile.yaml", GPU, "set precision: fp32"),
        ("bentofile.neuron.yaml", NEURON, ""),
        ("bentofile.neuron.yaml", GPU, "use stable_diffusion_fp16"),
        ("bentofile.fp16.yaml", NEURON, "use stable_diffusion_neuron"),
    ],
)
def test_each_of_our_bentos(bentofile: str, need: tuple[str, str], words: str) -> None:
    found = mismatch(labels(bentofile), {need})
    assert words in found and bool(words) == bool(found)


def test_one_service_of_several_is_enough() -> None:
    assert mismatch(labels("bentofile.fp16.yaml"), [GPU, ("fp32", "nvidia")])


def test_a_bento_of_another_make_is_not_judged() -> None:
    assert mismatch({"team": "images"}, {("fp32", "neuron")}) == ""
