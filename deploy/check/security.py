"""The profile `restricted` of Kubernetes' Pod Security Standards, in namespaces that enforce it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.check.pods import Document, Pod, of, pods, services

ENFORCE = "pod-security.kubernetes.io/enforce"
#: CloudWatch's operator instruments each Deployment that a Service selects, unless its pods say no.
#: Its init container for Java breaks the profile (amazon-cloudwatch-agent-operator, issue 361).
INJECT = "instrumentation.opentelemetry.io/inject-"
LANGUAGES = ("java", "python", "dotnet", "nodejs")
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def restricted(documents: list[Document]) -> Iterator[str]:
    """Return what an API server would refuse; KubeRay's own containers count as containers, too."""
    enforcing = {
        one["metadata"]["name"]
        for one in of(documents, "Namespace")
        if one["metadata"].get("labels", {}).get(ENFORCE) == "restricted"
    }
    for pod in pods(documents):
        if pod.namespace in enforcing:
            yield from (f"{pod.name}: {line} (restricted)" for line in _of_pod(pod))
    served = {
        (pod.namespace, pod.name): pod
        for service in services(documents).values()
        for pod in service.pods
    }
    for pod in served.values():
        if pod.namespace in enforcing and pod.name.startswith("Deployment/"):
            for language in LANGUAGES:
                if pod.annotations.get(INJECT + language) != "false":
                    yield f"{pod.name}: annotation {INJECT}{language} is not false (restricted)"


def _of_pod(pod: Pod) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield f"{name} is set"
    for volume in pod.spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    outer = pod.spec.get("securityContext", {})
    for container in pod.containers:
        inner = container.get("securityContext", {})
        yield from (f"{container['name']}: {line}" for line in _of_container(outer, inner))
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']}: hostPort is set"


def _of_container(outer: Document, inner: Document) -> Iterator[str]:
    def either(name: str) -> Any:
        return inner.get(name, outer.get(name))

    if inner.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if inner.get("privileged"):
        yield "privileged"
    capabilities = inner.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities.drop lacks ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if either("runAsNonRoot") is not True or either("runAsUser") == 0:
        yield "runAsNonRoot is not true"
    if (either("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccompProfile"
