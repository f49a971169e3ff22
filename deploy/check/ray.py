"""Rules on RayServices: what KubeRay's own code needs, and devices that Ray's autoscaler knows.

Worker groups offer Ray the devices that their pods ask Kubernetes for: what no group offers by name
is a resource that Ray's autoscaler cannot scale.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

Document = dict[str, Any]
#: The first version of Ray that has token authentication (KubeRay's utils/validation.go).
TOKEN_SINCE = (2, 52)
#: of a pod's limits -> what Ray calls it, and how many of them a device has
DEVICES = {"aws.amazon.com/neuron": ("neuron_cores", 2), "nvidia.com/gpu": ("GPU", 1)}


def manageable(documents: list[Document]) -> Iterator[str]:
    """Return the breaches of what KubeRay v1.7.0's own code needs beyond its schema."""
    for one in documents:
        if one["kind"] == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            yield from (f"RayService/{one['metadata']['name']}: {t}" for t in _of_cluster(cluster))


def _of_cluster(cluster: Document) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    # service.go: the default ports are added only where none is named
    ports = [p.get("name") for p in head["template"]["spec"]["containers"][0].get("ports", [])]
    for name in ("dashboard", "serve"):
        if ports and name not in ports:
            yield f"head: no container port is named {name}, so its Service lacks it"
    if head["rayStartParams"].get("dashboard-host", "0.0.0.0") != "0.0.0.0":
        yield "head: dashboard-host: the operator cannot submit the Serve config"
    version = tuple(int(part) for part in cluster.get("rayVersion", "0.0").split(".")[:2])
    if cluster.get("authOptions", {}).get("mode") == "token" and version < TOKEN_SINCE:
        yield "authOptions: token needs rayVersion 2.52 or later"
    for group in [head, *cluster.get("workerGroupSpecs", [])]:
        if group.get("resources") and {"num-cpus", "resources"} & set(group["rayStartParams"]):
            yield "resources: set them in rayStartParams or here, not in both"


def offered(documents: list[Document]) -> Iterator[str]:
    """Every group its pods' devices, and every replica a group that can hold it."""
    for one in documents:
        if one["kind"] == "RayService":
            groups = one["spec"]["rayClusterConfig"].get("workerGroupSpecs", [])
            name = f"RayService/{one['metadata']['name']}"
            for group in groups:
                yield from (f"{name}: {line}" for line in _of_group(group))
            rooms = [offers(group) for group in groups]
            for deployment, wanted in wanted_by(one["spec"]["serveConfigV2"]):
                if not any(_holds(room, wanted) for room in rooms):
                    yield f"{name}: {deployment} asks for {wanted}, which no group offers"


def _of_group(group: Document) -> Iterator[str]:
    pod, offer = group["template"]["spec"], offers(group)
    limits = pod["containers"][0]["resources"]["limits"]
    tolerated = {one.get("key") for one in pod.get("tolerations", [])}
    for device, (resource, each) in DEVICES.items():
        wanted = each * int(limits.get(device, 0))
        if offer.get(resource, 0) != wanted:
            told = f"{resource} {offer.get(resource, 0):g}"
            yield f"{group['groupName']}: rayStartParams: {told}, but the pod has {wanted}"
        if wanted and device not in tolerated:
            yield f"{group['groupName']}: tolerations: {device} is missing"


def offers(group: Document) -> dict[str, float]:
    """Return `ray start`'s arguments; its resources are JSON, quoted once more for the shell."""
    told = group["rayStartParams"]
    own = json.loads(shlex.split(told.get("resources", "'{}'"))[0])
    return {"CPU": float(told.get("num-cpus", 0)), "GPU": float(told.get("num-gpus", 0)), **own}


def wanted_by(config: str) -> Iterator[tuple[str, dict[str, float]]]:
    for application in yaml.safe_load(config)["applications"]:
        for one in application.get("deployments", []):
            options = one.get("ray_actor_options", {})
            counted = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
            yield one["name"], {**counted, **options.get("resources", {})}


def _holds(room: dict[str, float], wanted: dict[str, float]) -> bool:
    return all(room.get(name, 0) >= amount for name, amount in wanted.items())
