"""EC2's quotas that a deployment's nodes need: virtual CPUs, by family, and by how they are bought.

A new account has none for GPUs and Inferentia2, and five for all other instances. Karpenter's
nodes then never come, without a word that a user sees: so install.sh asks before anything is made.
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
#: The on-demand quota of instances without accelerators (A, C, D, H, I, M, R, T, Z).
STANDARD = "L-1216C47A"
#: Ray's head has a node of this size alone, and a second one during an update.
HEAD_CPUS = 4
#: The controllers' nodes: how many there are, and may be.
SYSTEM_NODES = (2, 3)


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
    found = [Quota(family, codes, *amounts) for (family, codes), amounts in needs.items()]
    return [*_standard(spec), *found]


def _standard(spec: EksSpec) -> list[Quota]:
    heads = HEAD_CPUS * sum(alone.host == "ray" for _, alone in spec.placements)
    size = spec.system_instance_type.partition(".")[2].removesuffix("large")
    system = 0 if spec.cluster else {"": 2, "x": 4}.get(size) or 4 * int(size.rstrip("x"))
    least, most = (system * count for count in SYSTEM_NODES)
    quota = Quota("standard", (STANDARD,), least + heads, most + 2 * heads)
    return [quota] if quota.least else []
