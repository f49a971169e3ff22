"""Every pod fits a node of a pool: labels, taints, instance types, CPUs, memory, devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.check.pods import Document, Pod, of, pods

#: EC2's sizes -> vCPUs; it holds for every family that pools name here.
_CPUS = {"large": 2, "xlarge": 4}
#: GiB of memory for each vCPU.
_MEMORY = {"c": 2, "m": 4, "r": 8, "g4dn": 4, "g5": 4, "g6": 4, "g6e": 8, "inf2": 4, "trn1": 4}
#: Devices of the sizes that have more than one.
_DEVICES = {"inf2.24xlarge": 6, "inf2.48xlarge": 12, "trn1.32xlarge": 16}
_RESOURCE = {"g": "nvidia.com/gpu", "i": "aws.amazon.com/neuron", "t": "aws.amazon.com/neuron"}
#: What EKS add-ons and device plugins ask for on every node: CPUs, and GiB.
DAEMONS = {"cpu": 0.5, "memory": 0.6}
_UNITS = {"m": 1e-3, "": 1.0, "Ki": 2**-20, "Mi": 2**-10, "Gi": 1.0, "Ti": 2.0**10}
TYPE = "node.kubernetes.io/instance-type"


@dataclass(frozen=True)
class Node:
    """The resources that a node of a pool has for pods; memory in GiB."""

    instance_type: str
    labels: dict[str, str]
    taints: tuple[str, ...]
    room: dict[str, float]


def placed(documents: list[Document]) -> Iterator[str]:
    """Each pod fits a node of a pool here."""
    nodes = [node for pool in of(documents, "NodePool") for node in of_pool(pool)]
    if not nodes:
        return
    for pod in pods(documents):
        reasons = [reason for reason in (_unfit(pod, node) for node in nodes) if reason]
        if len(reasons) == len(nodes):
            # the reason at the node that comes nearest: labels are tested first, then taints
            yield f"{pod.name}: fits no node: {max(reasons)[1]}"


def of_pool(pool: Document) -> Iterator[Node]:
    """A pool's nodes, one for each instance type."""
    template = pool["spec"]["template"]
    labels = template.get("metadata", {}).get("labels", {})
    taints = tuple(one["key"] for one in template["spec"].get("taints", []))
    requirements = template["spec"]["requirements"]
    (types,) = [one["values"] for one in requirements if one["key"] == TYPE]
    for name in types:
        yield Node(name, {**labels, TYPE: name}, taints, room(name))


def room(name: str) -> dict[str, float]:
    """Return what an instance has for pods, after what Bottlerocket, the kubelet and daemons take.

    Karpenter reckons 7.5% of memory for the hypervisor; Bottlerocket reserves 255 MiB and 11 MiB
    for each pod that the network allows, and the kubelet evicts pods below 100 MiB.
    """
    family, _, size = name.partition(".")
    times = re.match(r"(\d+)xlarge", size)
    cpus = _CPUS.get(size) or 4 * int(times[1] if times else 0)
    memory = cpus * (_MEMORY.get(family) or _MEMORY[family[0]])
    most_pods = 58 if cpus <= 8 else 234 if cpus <= 64 else 737
    reserved = (255 + 11 * most_pods + 100) / 1024
    found = {
        "cpu": cpus * 0.98 - DAEMONS["cpu"],
        "memory": memory * 0.925 - reserved - DAEMONS["memory"],
    }
    if resource := _RESOURCE.get(family[0]):
        found[resource] = _DEVICES.get(name, 1)
    return found


def _unfit(pod: Pod, node: Node) -> tuple[int, str] | None:
    wanted = pod.spec.get("nodeSelector", {})
    if not wanted.items() <= node.labels.items():
        return 0, f"nodeSelector: no NodePool has the labels {wanted}"
    tolerated = {one.get("key") for one in pod.spec.get("tolerations", [])}
    if missing := set(node.taints) - tolerated:
        return 1, f"tolerations: the pool's taint {', '.join(missing)} is missing"
    for name, amount in requests(pod).items():
        if amount > node.room.get(name, 0):
            have = f"{node.room.get(name, 0):.3g}"
            return 2, f"{name}: asks for {amount:.3g}, {node.instance_type} has {have}"
    return None


def requests(pod: Pod) -> dict[str, float]:
    """Return what the scheduler reserves: containers together, or the largest init container."""
    total: dict[str, float] = {}
    for container in pod.spec["containers"]:
        for name, amount in _asked(container).items():
            total[name] = total.get(name, 0) + amount
    for container in pod.spec.get("initContainers", []):
        for name, amount in _asked(container).items():
            total[name] = max(total.get(name, 0), amount)
    return total


def _asked(container: Document) -> dict[str, float]:
    resources = container.get("resources", {})
    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {
        name: quantity(value)
        for name, value in asked.items()
        if name in ("cpu", "memory") or "/" in name
    }


def quantity(value: object) -> float:
    """A Kubernetes quantity: of memory in GiB, of anything else as a number."""
    found = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(value))
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{value} is no quantity that is used here")
    return float(found[1]) * _UNITS[found[2]]
