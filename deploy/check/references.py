"""Checks that what objects name exists: Services, ports, ports of probes, gateways, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from deploy.check.pods import Document, Pod, Service, namespace, of, pods, services


def connected(documents: list[Document]) -> Iterator[str]:
    """Services select pods that have their ports, and each probe's port is a port of its pod."""
    for service in services(documents).values():
        for port, target in service.ports.items():
            for pod in service.pods:
                if pod.port(target) is None:
                    yield f"Service/{service.name}: port {port}: {pod.name} has no port {target}"
    for pod in pods(documents):
        for name, probe in pod.probes():
            yield from (f"{pod.name}: {name}: {line}" for line in _of_probe(pod, probe))


def _of_probe(pod: Pod, probe: Document) -> Iterator[str]:
    port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
    if isinstance(port, str) and pod.port(port) is None:
        yield f"the pod has no port {port}"
    if "wget" in json.dumps(probe.get("exec", "")):
        yield "calls wget, which the image does not have"


def routed(documents: list[Document]) -> Iterator[str]:
    """Routes have a gateway, and lead to Services that are there, by the addresses of pods."""
    found = services(documents)
    targets = _targets(documents)
    gateways = {(namespace(one), one["metadata"]["name"]) for one in of(documents, "Gateway")}
    for route in of(documents, "HTTPRoute"):
        name, where = f"HTTPRoute/{route['metadata']['name']}", namespace(route)
        for parent in route["spec"]["parentRefs"]:
            if (parent.get("namespace", where), parent["name"]) not in gateways:
                yield f"{name}: there is no Gateway {parent['name']}"
        for backend in backends(route):
            service = found.get((where, backend["name"]))
            if service is None or backend["port"] not in service.ports:
                yield f"{name}: there is no Service {backend['name']} with port {backend['port']}"
            if targets.get((where, backend["name"])) != "ip":
                yield f"{name}: Service {backend['name']} has no TargetGroupConfiguration by ip"


def _targets(documents: list[Document]) -> dict[tuple[str, str], str]:
    """The target type of each Service; without one the controller takes `instance`."""
    return {
        (namespace(one), one["spec"]["targetReference"]["name"]): one["spec"][
            "defaultConfiguration"
        ].get("targetType", "instance")
        for one in of(documents, "TargetGroupConfiguration")
    }


def backends(route: Document) -> list[Document]:
    """Every backend of a route."""
    return [one for rule in route["spec"]["rules"] for one in rule.get("backendRefs", [])]


def addressed(documents: list[Document]) -> Iterator[str]:
    """Addresses in arguments, variables and triggers lead to Services that are there."""
    found = services(documents)
    for pod in pods(documents):
        for address in addresses(pod):
            if called(address, pod.namespace, found) is None:
                yield f"{pod.name}: there is no Service at {address}"
    for scaled in of(documents, "ScaledObject"):
        for address in scrapes(scaled):
            name = f"ScaledObject/{scaled['metadata']['name']}"
            host = urlsplit(address).hostname or ""
            service = found.get((host.split(".")[1], host.split(".")[0]))
            # KEDA takes the Service's name and asks its pods, so the port is theirs
            if service is None or any(
                one.port(urlsplit(address).port) is None for one in service.pods
            ):
                yield f"{name}: no pods answer at {address}"


def addresses(pod: Pod) -> Iterator[str]:
    """Addresses of Services inside the cluster, in arguments and variables."""
    for container in pod.containers:
        variables = (one.get("value", "") for one in container.get("env", []))
        for value in map(str, [*container.get("args", []), *variables]):
            if re.match(r"https?://[a-z0-9-]+(\.[a-z0-9-]+\.svc[a-z.]*)?(:\d+)?(/|$)", value):
                yield value


def called(
    address: str, where: str, found: dict[tuple[str, str], Service]
) -> tuple[Service, int] | None:
    """The Service at an address, and its port; None where there is none."""
    parts = urlsplit(address)
    name, *rest = (parts.hostname or "").split(".")
    service = found.get((rest[0] if rest else where, name))
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return (service, port) if service and port in service.ports else None


def scrapes(scaled: Document) -> list[str]:
    """The addresses that a ScaledObject's triggers ask."""
    triggers = scaled["spec"]["triggers"]
    return [one["metadata"]["url"] for one in triggers if one["type"] == "metrics-api"]


def supplied(documents: list[Document]) -> Iterator[str]:
    """Settings and claims that pods take are there. Secrets are made by installers."""
    there = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for pod in pods(documents):
        wanted = {
            ("ConfigMap", one["configMapRef"]["name"])
            for container in pod.containers
            for one in container.get("envFrom", [])
            if "configMapRef" in one
        }
        wanted |= {
            ("PersistentVolumeClaim", one["persistentVolumeClaim"]["claimName"])
            for one in pod.spec.get("volumes", [])
            if "persistentVolumeClaim" in one
        }
        yield from (f"{pod.name}: {kind}/{name} is not here" for kind, name in wanted - there)


def bound(documents: list[Document]) -> Iterator[str]:
    """A RoleBinding gives its rights to service accounts that are there."""
    there = {(namespace(one), one["metadata"]["name"]) for one in of(documents, "ServiceAccount")}
    for binding in of(documents, "RoleBinding"):
        for one in binding.get("subjects", []):
            account = one.get("namespace", namespace(binding)), one["name"]
            if one["kind"] == "ServiceAccount" and account not in there:
                name = f"RoleBinding/{binding['metadata']['name']}"
                yield f"{name}: there is no ServiceAccount {'/'.join(account)}"
