"""Where a service lives in the cluster: names, namespace, and its place at the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from sd_aws_eks.spec import EksSpec

#: The name of everything in the tree, and of the one service where there is one.
TREE = "stable-diffusion"


@dataclass(frozen=True)
class Placement:
    """A service's names. `name` is empty for the one service of a deployment.

    `hostname` and `path`: what the gateway sends here; neither means everything.
    """

    name: str = ""
    hostname: str | None = None

    @property
    def namespace(self) -> str:
        """The service's namespace, and the beginning of its names outside of namespaces."""
        return f"{TREE}-{self.name}" if self.name else TREE

    @property
    def path(self) -> str:
        """The path below which the gateway has it, without a slash at the end."""
        return f"/{self.name}" if self.name and not self.hostname else ""

    @property
    def shares_gateway(self) -> bool:
        """True when the gateway is in another namespace, because several services share it."""
        return bool(self.name)


def placements(spec: EksSpec) -> list[tuple[Placement, EksSpec]]:
    """Every service's place, and the spec that it has alone."""
    return [
        (Placement(one.name, one.hostname) if one else Placement(), alone)
        for one, alone in spec.placements
    ]
