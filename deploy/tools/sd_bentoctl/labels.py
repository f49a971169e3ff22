"""Checks by the labels of its bentofile that a Bento is the one for a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: Label `precision` -> the field's values that such a Bento serves; only two of them have a Bento.
SERVES = {"fp32": ("fp32",), "fp16": ("auto", "fp16", "bf16")}


class Need(NamedTuple):
    """A need says what a service's Bento must be built for.

    Attributes:
        accelerator: nvidia or neuron.
        host: bentoml or ray.
    """

    precision: str
    accelerator: str
    host: str = "bentoml"


def mismatch(labels: Mapping[str, str], needs: Iterable[Need]) -> str:
    """Return what does not fit, as `field: problem; fix`; empty where all does.

    Args:
        labels: of the Bento. One without ours, which is of another's make, is not judged.
        needs: of each service that gets the image. A Bento with Ray inside serves either host.
    """
    built = labels.get("precision")
    neuron = labels.get("accelerator") == "neuron"
    if not (built or neuron):
        return ""
    for precision, accelerator, host in needs:
        if neuron != (accelerator == "neuron"):
            right = (
                "stable_diffusion_neuron" if accelerator == "neuron" else "stable_diffusion_fp16"
            )
            kind = "Inferentia2 and Trainium" if neuron else "GPUs and CPUs"
            return f"bento: it is built for {kind}, which the instance type is not; use {right}"
        if built and precision not in SERVES.get(built, (built,)):
            return (
                f"spec.precision: is {precision}, and the Bento is built for {built}; "
                f"set precision: {built}, or build another Bento"
            )
        if host == "ray" and labels.get("host") != "ray":
            bento = "neuron" if neuron else built
            return (
                "bento: it has no Ray inside, which serves several accelerators or host: ray; "
                f"use stable_diffusion_{bento}_ray, built by python -m deploy.ray.bento {bento}"
            )
    return ""
