"""Instance types for nodes: those of every operator, and Trainium, which EKS alone has here."""

from __future__ import annotations

from sd_bentoctl.instances import INSTANCES, InstanceType

__all__ = ["EVERY", "InstanceType", "cpus"]

_TRN1 = "AWS Trainium, 32 GB"
TRAINIUM = (
    InstanceType("trn1.2xlarge", "neuron", _TRN1, 1, 32),
    InstanceType("trn1.32xlarge", "neuron", _TRN1, 16, 512),
)
EVERY = {**INSTANCES, **{one.name: one for one in TRAINIUM}}


def cpus(one: InstanceType) -> int:
    """Return its virtual CPUs by its size: 4 per xlarge in every family here."""
    size = one.name.partition(".")[2].removesuffix("xlarge")
    return 4 * int(size or 1)
