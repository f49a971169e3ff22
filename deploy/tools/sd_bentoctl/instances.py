"""The instance types we deploy to: accelerator, memory and cited price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Accelerator = Literal["nvidia", "neuron"]


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type.

    `devices`: GPUs, or Inferentia2 chips (one /dev/neuronN each). `memory_gib`: the host's.
    `hourly`: on-demand, us-east-1, July 2026, in $; None where we have no cited price.
    """

    name: str
    accelerator: Accelerator
    chip: str
    devices: int
    memory_gib: int
    hourly: float | None = None


_T4, _A10G, _L4, _L40S = "NVIDIA T4, 16 GB", "NVIDIA A10G, 24 GB", "NVIDIA L4, 24 GB", "NVIDIA L40S"
_INF2 = "AWS Inferentia2, 32 GB"
#: Sizes: AWS's instance-type pages.
INSTANCES = {
    one.name: one
    for one in (
        InstanceType("g4dn.xlarge", "nvidia", _T4, 1, 16, 0.526),
        InstanceType("g4dn.2xlarge", "nvidia", _T4, 1, 32),
        InstanceType("g5.xlarge", "nvidia", _A10G, 1, 16, 1.006),
        InstanceType("g5.2xlarge", "nvidia", _A10G, 1, 32),
        InstanceType("g5.4xlarge", "nvidia", _A10G, 1, 64),
        InstanceType("g5.12xlarge", "nvidia", _A10G, 4, 192),
        InstanceType("g6.xlarge", "nvidia", _L4, 1, 16, 0.805),
        InstanceType("g6.2xlarge", "nvidia", _L4, 1, 32),
        InstanceType("g6.4xlarge", "nvidia", _L4, 1, 64),
        InstanceType("g6.12xlarge", "nvidia", _L4, 4, 192),
        InstanceType("g6e.xlarge", "nvidia", _L40S + ", 48 GB", 1, 32, 1.861),
        InstanceType("g6e.2xlarge", "nvidia", _L40S + ", 48 GB", 1, 64),
        InstanceType("inf2.xlarge", "neuron", _INF2, 1, 16, 0.758),
        InstanceType("inf2.8xlarge", "neuron", _INF2, 1, 128, 1.968),
        InstanceType("inf2.24xlarge", "neuron", _INF2, 6, 384, 6.49),
        InstanceType("inf2.48xlarge", "neuron", _INF2, 12, 768, 12.98),
    )
}
#: Regions where inf2 is offered, as known in 2025 and not verified since: AWS adds regions.
INF2_REGIONS = frozenset(
    """us-east-1 us-east-2 us-west-2 ap-northeast-1 ap-south-1 ap-southeast-1 ap-southeast-2
    ap-southeast-4 eu-central-1 eu-north-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
    sa-east-1""".split()  # noqa: SIM905
)
