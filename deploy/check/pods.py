"""The pods and Services that a deployment's objects make, those that KubeRay makes included.

What KubeRay v1.7.0 builds of a RayService is in its ray-operator/controllers/ray/common: pod.go
adds the autoscaler beside the head, an init container before each worker, and probes where there
are none; service.go makes the Services of the ports that the head's container names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

_WGET = "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}
_WAITING = {"cpu": "200m", "memory": "256Mi"}


@dataclass(frozen=True)
class Pod:
    """One kind of pod: what it is called in messages, where it runs, its labels and its spec."""

    name: str
    namespace: str
    labels: dict[str, str]
    spec: Document
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def containers(self) -> list[Document]:
        """All containers, init containers first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def port(self, wanted: object) -> int | None:
        """The number of a container port by its name or number; None where there is none."""
        for container in self.containers:
            for one in container.get("ports", []):
                if wanted in (one.get("name"), one["containerPort"]):
                    return int(one["containerPort"])
        return None

    def probes(self) -> Iterator[tuple[str, Document]]:
        """Container and kind of each probe, and the probe."""
        for container in self.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if kind in container:
                    yield f"{container['name']}: {kind}", container[kind]


@dataclass(frozen=True)
class Service:
    """A Service's name, the pods that it selects, its ports by number, and its selector."""

    name: str
    namespace: str
    pods: tuple[Pod, ...]
    ports: dict[int, object]
    selector: dict[str, str]


def of(documents: Iterable[Document], *kinds: str) -> list[Document]:
    """The objects of these kinds."""
    return [one for one in documents if one["kind"] in kinds]


def namespace(document: Document) -> str:
    """The namespace of an object."""
    return str(document["metadata"].get("namespace", "default"))


def pods(documents: Iterable[Document]) -> list[Pod]:
    """Every kind of pod."""
    documents = list(documents)
    found = [
        _pod(one, one["spec"]["template"], "")
        for one in of(documents, "Deployment", "StatefulSet", "DaemonSet", "Job")
    ]
    for one in of(documents, "RayService"):
        cluster = one["spec"]["rayClusterConfig"]
        found.append(_head(one, cluster))
        found += [_worker(one, group) for group in cluster.get("workerGroupSpecs", [])]
    return found


def _pod(owner: Document, template: Document, part: str) -> Pod:
    name = f"{owner['kind']}/{owner['metadata']['name']}{part}"
    metadata = template.get("metadata", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    return Pod(name, namespace(owner), labels, template["spec"], annotations)


def _ray_pod(owner: Document, group: Document, part: str, kind: str) -> Pod:
    template = copy.deepcopy(group["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels |= {
        "ray.io/cluster": owner["metadata"]["name"],
        "ray.io/node-type": kind,
        "ray.io/is-ray-node": "yes",
        "ray.io/serve": str(kind == "worker").lower(),
    }
    first = template["spec"]["containers"][0]
    health = {"httpGet": {"path": "/api/healthz", "port": 52365}}
    first.setdefault("livenessProbe", health)
    wget = {"exec": {"command": ["bash", "-c", _WGET]}}
    first.setdefault("readinessProbe", wget if kind == "worker" else health)
    return _pod(owner, template, part)


def _head(owner: Document, cluster: Document) -> Pod:
    head = _ray_pod(owner, cluster["headGroupSpec"], " head", "head")
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions", {})
        image = head.spec["containers"][0]["image"]
        default = {"name": "autoscaler", "image": image, "resources": _resources(_AUTOSCALER)}
        chosen = {k: v for k, v in options.items() if k in ("resources", "securityContext", "env")}
        head.spec["containers"].append({**default, **chosen})
    return head


def _worker(owner: Document, group: Document) -> Pod:
    worker = _ray_pod(owner, group, f" workers {group['groupName']}", "worker")
    first = worker.spec["containers"][0]
    taken = {name: first[name] for name in ("image", "securityContext") if name in first}
    waiting = {"name": "wait-gcs-ready", **taken, "resources": _resources(_WAITING)}
    worker.spec.setdefault("initContainers", []).append(waiting)
    return worker


def _resources(amounts: Document) -> Document:
    return {"requests": dict(amounts), "limits": dict(amounts)}


def services(documents: Iterable[Document]) -> dict[tuple[str, str], Service]:
    """Every Service by namespace and name, KubeRay's own included."""
    documents = list(documents)
    every = pods(documents)
    found = []
    for one in of(documents, "Service"):
        spec, where = one["spec"], namespace(one)
        selector = spec.get("selector", {})
        ports = {port["port"]: port.get("targetPort", port["port"]) for port in spec["ports"]}
        chosen = selected(every, where, selector)
        found.append(Service(one["metadata"]["name"], where, chosen, ports, selector))
    for one in of(documents, "RayService"):
        found += _ray_services(one, every)
    return {(one.namespace, one.name): one for one in found}


def _ray_services(owner: Document, every: list[Pod]) -> Iterator[Service]:
    name, where = owner["metadata"]["name"], namespace(owner)
    first = owner["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in first.get("ports", [])}
    ports = ports or {"gcs-server": 6379, "dashboard": 8265, "serve": 8000}
    own = {"ray.io/cluster": name}
    of_head = {**own, "ray.io/node-type": "head"}
    head = selected(every, where, of_head)
    yield Service(f"{name}-head-svc", where, head, {one: one for one in ports.values()}, of_head)
    served = {number: number for kind, number in ports.items() if kind.startswith("serve")}
    if served:  # KubeRay makes none without such a port
        of_serve = {**own, "ray.io/serve": "true"}
        serving = selected(every, where, of_serve)
        yield Service(f"{name}-serve-svc", where, serving, {**served}, of_serve)


def selected(every: Iterable[Pod], where: str, labels: dict[str, str]) -> tuple[Pod, ...]:
    """The pods of a namespace that have these labels."""
    return tuple(
        one for one in every if one.namespace == where and labels.items() <= one.labels.items()
    )
