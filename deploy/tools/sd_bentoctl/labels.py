"""Checks by the labels of its bentofile that a Bento is the one for a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Label `precision` -> the field's values that such a Bento serves; bf16 has no Bento of its own.
SERVES = {"fp32": ("fp32",), "fp16": ("fp16", "bf16")}


def mismatch(labels: Mapping[str, str], needs: Iterable[tuple[str, str]]) -> str:
    """Return what does not fit, as `field: problem; fix`; empty where all does.

    Args:
        labels: of the Bento. One without ours, which is of another's make, is not judged.
        needs: precision and accelerator (`nvidia` or `neuron`) of each service that gets the image.
    """
    built = labels.get("precision")
    neuron = labels.get("accelerator") == "neuron"
    if not (built or neuron):
        return ""
    for precision, accelerator in needs:
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
    return ""
