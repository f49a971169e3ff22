"""A Bento and the configuration that it is deployed with: what does not fit is told."""

from __future__ import annotations

import pytest
import yaml

from deploy.ray.bento import bentofile as with_ray
from sd_aws_ec2.spec import Ec2Spec
from sd_aws_eks.spec import EksSpec
from sd_bentoctl.labels import Need, mismatch
from tests.deploy.conftest import ROOT

GPU, NEURON, FULL = Need("auto", "nvidia"), Need("bf16", "neuron"), Need("fp32", "nvidia")
RAY, NEURON_RAY = Need("auto", "nvidia", "ray"), Need("bf16", "neuron", "ray")


def labels(name: str) -> dict[str, str]:
    """The labels of one of our bentofiles, or of a Bento with Ray inside."""
    if name.endswith("_ray"):
        ray: dict[str, str] = with_ray(name.removesuffix("_ray"))["labels"]
        return ray
    found: dict[str, str] = yaml.safe_load((ROOT / name).read_text())["labels"]
    return found


@pytest.mark.parametrize(
    ("bentofile", "need", "words"),
    [
        ("bentofile.fp16.yaml", GPU, ""),
        ("bentofile.fp16.yaml", Need("fp16", "nvidia"), ""),
        ("bentofile.fp16.yaml", Need("bf16", "nvidia"), ""),
        ("bentofile.fp16.yaml", FULL, "set precision: fp16"),
        ("bentofile.yaml", FULL, ""),
        ("bentofile.yaml", GPU, "set precision: fp32"),
        ("bentofile.neuron.yaml", NEURON, ""),
        ("bentofile.neuron.yaml", GPU, "use stable_diffusion_fp16"),
        ("bentofile.fp16.yaml", NEURON, "use stable_diffusion_neuron"),
        ("bentofile.fp16.yaml", RAY, "use stable_diffusion_fp16_ray"),
        ("bentofile.neuron.yaml", NEURON_RAY, "use stable_diffusion_neuron_ray"),
        ("fp16_ray", RAY, ""),
        ("fp16_ray", GPU, ""),
        ("neuron_ray", NEURON_RAY, ""),
    ],
)
def test_each_of_our_bentos(bentofile: str, need: tuple[str, str], words: str) -> None:
    found = mismatch(labels(bentofile), {need})
    assert words in found and bool(words) == bool(found)


def test_one_service_of_several_is_enough() -> None:
    assert mismatch(labels("bentofile.fp16.yaml"), [GPU, FULL])


def test_a_bento_of_another_make_is_not_judged() -> None:
    assert mismatch({"team": "images"}, {Need("fp32", "neuron")}) == ""


def test_what_configurations_need() -> None:
    several = Ec2Spec(region="us-east-1", instance_type="g6.12xlarge")
    assert several.needs == {RAY}
    assert Ec2Spec(region="us-east-1", instance_type="g6.xlarge").needs == {GPU}
    assert EksSpec(region="us-east-1", instance_types=["g6.xlarge"], host="ray").needs == {RAY}
