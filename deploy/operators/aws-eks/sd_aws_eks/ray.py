"""Patches on the RayService: one worker group per size of instance, and the Serve config."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sd_aws_eks.instances import InstanceType, cpus
from sd_aws_eks.nodes import RESOURCES, label
from sd_aws_eks.patching import Changes, Document, dump, patch
from sd_aws_eks.placement import TREE, Placement
from sd_aws_eks.spec import END_S, FORGET_S, EksSpec

TREE_SERVICE = Path(__file__).resolve().parents[3] / "kubernetes" / "ray" / "ray-service.yaml"
#: The seconds in the tree's preStop.
DRAIN_S = 80
CLUSTER = "/spec/rayClusterConfig"
#: Ray's name for an accelerator, and how many of them one replica takes.
_CORES = 2
#: A connection of the load balancer must not outlive Serve's side of it.
KEEP_ALIVE_S = 60


def patches(spec: EksSpec, placement: Placement, timeout_s: int) -> list[Document]:
    """The spec's values on the RayService of the tree."""
    groups = list(_groups(spec))
    changes: Changes = [
        ("/spec/serveConfigV2", dump(serve_config(spec, groups, timeout_s))),
        (
            f"{CLUSTER}/headGroupSpec/template/spec/nodeSelector",
            {"stable-diffusion/nodes": label(placement, "general")},
        ),
    ]
    found = [patch("RayService", changes)]
    for number in range(1, len(groups)):
        copied = {"op": "copy", "from": f"{CLUSTER}/workerGroupSpecs/0"}
        copied["path"] = f"{CLUSTER}/workerGroupSpecs/{number}"
        found.append({"target": {"kind": "RayService"}, "patch": dump([copied])})
    for number, group in enumerate(groups):
        found.append(patch("RayService", _group(number, group, spec, placement, len(groups))))
    return found


def serve_config(spec: EksSpec, groups: list[InstanceType], timeout_s: int) -> dict[str, Any]:
    """The Serve config: what Ray starts, and when it starts more."""
    neuron = spec.accelerator == "neuron"
    resources: dict[str, Any] = (
        {"resources": {"neuron_cores": _CORES}} if neuron else {"num_gpus": 1}
    )
    waits_s = FORGET_S + spec.drain_s + END_S
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": "0.0.0.0",
            "port": 8000,
            "keep_alive_timeout_s": timeout_s + KEEP_ALIVE_S,
        },
        "applications": [
            {
                "name": TREE,
                "route_prefix": "/",
                "import_path": "hosts.ray.app:build",
                "args": {},
                "deployments": [
                    {
                        "name": "ingress",
                        "user_config": {},  # it takes requests once it knows the models
                        "num_replicas": 1,
                        "max_ongoing_requests": 1000,
                        "graceful_shutdown_timeout_s": waits_s,
                        "ray_actor_options": {"num_cpus": 1},
                    },
                    {
                        "name": "replica",
                        "max_ongoing_requests": 2 * spec.requests_per_replica,
                        "max_queued_requests": 256,
                        "graceful_shutdown_timeout_s": waits_s,
                        "autoscaling_config": {
                            "min_replicas": spec.min_replicas,
                            "max_replicas": spec.max_replicas,
                            "target_ongoing_requests": spec.requests_per_replica,
                            "upscale_delay_s": 2,
                            "downscale_delay_s": 300,
                        },
                        "ray_actor_options": {"num_cpus": 1, **resources},
                    },
                ],
            }
        ],
    }


def _groups(spec: EksSpec) -> Iterator[InstanceType]:
    """The smallest instance of each number of devices: pods of one group fit all of the same."""
    for count in sorted({one.devices for one in spec.instances}):
        same = [one for one in spec.instances if one.devices == count]
        yield min(same, key=lambda one: one.memory_gib)


def _group(
    number: int, size: InstanceType, spec: EksSpec, placement: Placement, groups: int
) -> Changes:
    group = f"{CLUSTER}/workerGroupSpecs/{number}"
    pod = f"{group}/template/spec"
    container = f"{pod}/containers/0"
    count, memory = pod_size(size)
    resource = RESOURCES[spec.accelerator]
    start: dict[str, str] = {"num-cpus": str(count)}
    if spec.accelerator == "neuron":
        start["resources"] = f'"{{\\"neuron_cores\\": {_CORES * size.devices}}}"'
    else:
        start["num-gpus"] = str(size.devices)
    selector = {"stable-diffusion/nodes": label(placement, spec.accelerator)}
    if groups > 1:
        selector["node.kubernetes.io/instance-type"] = size.name
    least = math.ceil(spec.min_replicas / size.devices) if number == 0 else 0
    tolerated = {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
    return [
        (f"{group}/groupName", size.name.replace(".", "-")),
        (f"{group}/minReplicas", least),
        (f"{group}/replicas", least),
        (f"{group}/maxReplicas", math.ceil(spec.max_replicas / size.devices)),
        (f"{group}/rayStartParams", start),
        (f"{pod}/terminationGracePeriodSeconds", FORGET_S + spec.drain_s + END_S),
        (f"{container}/lifecycle/preStop/exec/command", _drain(FORGET_S + spec.drain_s)),
        (f"{pod}/nodeSelector", selector),
        (f"{pod}/tolerations", [tolerated]),
        (f"{container}/resources/requests", {"cpu": str(count), "memory": f"{memory}Gi"}),
        (f"{container}/resources/limits", {"memory": f"{memory}Gi", resource: str(size.devices)}),
    ]


def _drain(seconds: int) -> list[str]:
    """The tree's command, with the spec's time: it is the only number in it."""
    tree = yaml.safe_load(TREE_SERVICE.read_text())
    (group,) = tree["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    hook = group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    return [word.replace(str(DRAIN_S), str(seconds)) for word in hook["exec"]["command"]]


def pod_size(size: InstanceType) -> tuple[int, int]:
    """CPUs and GiB of a pod that has the whole node: what its daemons and its system leave."""
    count = cpus(size)
    return count - max(1, count // 16), math.floor(0.75 * size.memory_gib)
