"""EC2's quotas that a deployment's nodes need: virtual CPUs, by family, and by how they are bought.

A new account has none for GPUs and Inferentia2. Karpenter's nodes then never come, without a word
that a user sees: so install.sh asks before anything is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from sd_aws_eks.instances import cpus
from sd_aws_eks.spec import EksSpec

#: Family -> code of the on-demand quota, and of the spot one (Service Quotas, service `ec2`).
CODES = {
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "trn": ("L-2C3B7624", "L-6B0D517C"),
}


@dataclass(frozen=True)
class Quota:
    """One family's need, in virtual CPUs: for the least and for the most replicas.

    `codes`: the quotas of which one must be large enough, the preferred first.
    """

    family: str
    codes: tuple[str, ...]
    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.family} {','.join(self.codes)} {self.least} {self.most}"


def quotas(spec: EksSpec) -> list[Quota]:
    """Return the quotas that all services need, one entry per family and way of buying."""
    needs: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    for _, alone in spec.placements:
        smallest = min(alone.instances, key=cpus)
        family = "g" if smallest.name[0] == "g" else smallest.name.partition(".")[0].rstrip("12")
        on_demand, spot = CODES[family]
        codes = {"on-demand": (on_demand,), "spot": (spot,), "spot-first": (spot, on_demand)}
        key = family, codes[alone.capacity]
        each = cpus(smallest)
        least, most = needs.get(key, (0, 0))
        nodes = [
            -(-count // smallest.devices) for count in (alone.min_replicas, alone.max_replicas)
        ]
        needs[key] = least + each * nodes[0], most + each * nodes[1]
    return [Quota(family, codes, *amounts) for (family, codes), amounts in needs.items()]
