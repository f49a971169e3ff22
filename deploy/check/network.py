"""NetworkPolicies let through what the manifests need, and keep pods from the node's metadata.

The CNI of AWS knows a Service's address only where the rule's podSelector matches the Service's
own selector (amazon-network-policy-controller-k8s, getMatchingServiceClusterIPs): who calls a
Service must be let out to its address and to the pods behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.check.pods import Document, Pod, Service, namespace, of, pods, services
from deploy.check.references import addresses, backends, called, scrapes

#: Namespaces of controllers that call pods, as deploy/eks/install.sh installs them.
KEDA, KUBERAY = "keda", "kuberay-operator"
METADATA = "169.254.169.254"
POD_IDENTITY = "169.254.170.23"
DNS, HTTPS = 53, 443
OUTSIDE = "198.51.100.1"
Found = dict[tuple[str, str], Service]


@dataclass(frozen=True)
class Peer:
    """One side of a connection: a pod, any pod of a namespace, or an address outside."""

    what: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


def peer(pod: Pod) -> Peer:
    """A pod as a side of a connection."""
    return Peer(pod.name, pod.namespace, tuple(sorted(pod.labels.items())))


def reachable(documents: list[Document]) -> Iterator[str]:
    """Every connection that the manifests need passes every policy on its way."""
    policies = of(documents, "NetworkPolicy")
    for source, target, port in needed(documents):
        for line in _refused(policies, source, target, port):
            yield f"NetworkPolicy: {line}"
    for pod in pods(documents):
        selecting = _selecting(policies, peer(pod), "egress")
        metadata = Peer("the node's metadata", address=METADATA)
        if selecting and _admitted(selecting, "egress", metadata, 80):
            yield f"NetworkPolicy: {pod.name} may reach the node's metadata"


def needed(documents: list[Document]) -> Iterator[tuple[Peer, Peer, int]]:
    """From, to and port of every connection."""
    every, found = pods(documents), services(documents)
    outside = Peer("the load balancer", address=OUTSIDE)
    for route in of(documents, "HTTPRoute"):
        for backend in backends(route):
            if service := found.get((namespace(route), backend["name"])):
                for pod in service.pods:
                    yield outside, peer(pod), pod.port(service.ports.get(backend["port"])) or 0
    for scaled in of(documents, "ScaledObject"):
        yield from _of_scaler(scaled, found)
    for pod in every:
        yield from _of_pod(pod, every, found)
        for address in _collectors(pod, documents):
            parts = urlsplit(address)
            where = (parts.hostname or "").split(".")[1]
            yield peer(pod), Peer("the collector", where), parts.port or 4318


def _of_scaler(scaled: Document, found: Found) -> Iterator[tuple[Peer, Peer, int]]:
    for address in scrapes(scaled):
        name, where = (urlsplit(address).hostname or "").split(".")[:2]
        if service := found.get((where, name)):
            for pod in service.pods:
                yield Peer("KEDA", KEDA), peer(pod), urlsplit(address).port or 80


def _of_pod(pod: Pod, every: list[Pod], found: Found) -> Iterator[tuple[Peer, Peer, int]]:
    for address in addresses(pod):
        if reached := called(address, pod.namespace, found):
            service, port = reached
            selector = tuple(sorted(service.selector.items()))
            its_address = Peer(f"Service {service.name}", service.namespace, selector)
            for target in service.pods:
                number = target.port(service.ports[port]) or port
                yield peer(pod), its_address, number
                yield peer(pod), peer(target), number
    if "ray.io/cluster" in pod.labels:
        yield from _of_ray(pod, every)
    yield peer(pod), Peer("names", "kube-system"), DNS
    if not pod.name.endswith("/ui"):  # models of the Hub, AWS, the Kubernetes API
        yield peer(pod), Peer("https", address=OUTSIDE), HTTPS
    if any(e["name"] == "WORKER_POD_COST" for c in pod.containers for e in c.get("env", [])):
        yield peer(pod), Peer("the Pod Identity agent", address=POD_IDENTITY), 80


def _collectors(pod: Pod, documents: list[Document]) -> Iterator[str]:
    """Where a pod sends traces, by its settings."""
    taken = {
        one.get("configMapRef", {}).get("name")
        for container in pod.containers
        for one in container.get("envFrom", [])
    }
    for one in of(documents, "ConfigMap"):
        if one["metadata"]["name"] in taken and namespace(one) == pod.namespace:
            yield from (v for k, v in one["data"].items() if k == "OTEL_EXPORTER_OTLP_ENDPOINT")


def _of_ray(pod: Pod, every: list[Pod]) -> Iterator[tuple[Peer, Peer, int]]:
    """Yield what Ray's pods need.

    Its processes use many ports among themselves; the operator asks the head's dashboard, and its
    proxy's health.
    """
    for other in every:
        if other.labels.get("ray.io/cluster") == pod.labels["ray.io/cluster"]:
            yield peer(pod), peer(other), 6379
            yield peer(pod), peer(other), 52365
    if pod.labels["ray.io/node-type"] == "head":
        for name in ("dashboard", "serve"):
            yield Peer("KubeRay's operator", KUBERAY), peer(pod), pod.port(name) or 0


def _refused(policies: list[Document], source: Peer, target: Peer, port: int) -> Iterator[str]:
    arriving = _selecting(policies, target, "ingress")
    if arriving and not _admitted(arriving, "ingress", source, port):
        yield f"{target.what}: {source.what} cannot come in at {port}"
    leaving = _selecting(policies, source, "egress")
    if leaving and not _admitted(leaving, "egress", target, port):
        yield f"{source.what}: cannot reach {target.what} at {port}"


def _selecting(policies: list[Document], one: Peer, way: str) -> list[Document]:
    """The policies that restrict this way of a pod; an address and a bare namespace have none."""
    return [
        policy
        for policy in policies
        if one.labels is not None
        and one.what.count("/")
        and namespace(policy) == one.namespace
        and way.capitalize() in policy["spec"].get("policyTypes", ["Ingress"])
        and _labelled(policy["spec"].get("podSelector", {}), dict(one.labels))
    ]


def _labelled(selector: Document, labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def _admitted(policies: list[Document], way: str, other: Peer, port: int) -> bool:
    side = {"ingress": "from", "egress": "to"}[way]
    return any(
        _ports(rule, port) and _sides(rule.get(side), other, namespace(policy))
        for policy in policies
        for rule in policy["spec"].get(way, [])
    )


def _ports(rule: Document, port: int) -> bool:
    return "ports" not in rule or any(one.get("port") in (None, port) for one in rule["ports"])


def _sides(sides: list[Document] | None, other: Peer, own: str) -> bool:
    return sides is None or any(_side(one, other, own) for one in sides)


def _side(one: Document, other: Peer, own: str) -> bool:
    if "ipBlock" in one:
        inside = other.address and _within(other.address, one["ipBlock"]["cidr"])
        return bool(inside) and not any(
            _within(other.address, part) for part in one["ipBlock"].get("except", [])
        )
    if not other.namespace:
        return False
    wanted = one.get("namespaceSelector")
    if wanted is None and other.namespace != own:
        return False
    if wanted and not _labelled(wanted, {"kubernetes.io/metadata.name": other.namespace}):
        return False
    return _labelled(one.get("podSelector", {}), dict(other.labels))


def _within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)
