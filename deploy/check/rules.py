"""Rules across the objects of a deployment: what schemas cannot say.

Each is a function `documents -> lines`, one line a breach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.check.network import reachable
from deploy.check.nodes import placed
from deploy.check.pods import Document, of, pods
from deploy.check.ray import manageable, offered
from deploy.check.references import addressed, bound, connected, routed, supplied
from deploy.check.security import restricted

#: A spot instance ends 120 s after its notice.
LONGEST_GRACE_S = 115
#: Beyond preStop and SD_DRAIN_S, for the process to end.
END_S = 10
#: The default of SD_REQUEST_TIMEOUT_S.
REQUEST_TIMEOUT_S = 300.0


def broken(documents: list[Document]) -> list[str]:
    """Every breach of every rule."""
    return [line for rule in RULES for line in rule(documents)]


def workloads(documents: list[Document]) -> Iterator[tuple[str, Document, Document]]:
    """Name, pod template and pod spec of everything that makes pods."""
    for one in of(documents, "Deployment", "StatefulSet", "DaemonSet", "Job"):
        template = one["spec"]["template"]
        yield f"{one['kind']}/{one['metadata']['name']}", template, template["spec"]


def hardened(documents: list[Document]) -> Iterator[str]:
    """Not root, system calls filtered, nothing writable but volumes, no capabilities."""
    for name, _, pod in workloads(documents):
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            yield f"{name}: spec.securityContext: must run as a user that is not root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: spec.securityContext.seccompProfile: must be RuntimeDefault"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: spec.automountServiceAccountToken: must be false"
        for container in containers(pod):
            yield from _hardened_container(f"{name}/{container['name']}", container)


def containers(pod: Document) -> list[Document]:
    """All of a pod's, the first ones included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def _hardened_container(name: str, container: Document) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: securityContext.allowPrivilegeEscalation: must be false"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: securityContext.readOnlyRootFilesystem: must be true"
    if context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{name}: securityContext.capabilities.drop: must be [ALL]"


def bounded(documents: list[Document]) -> Iterator[str]:
    """Memory asked for and limited, and an image of a fixed version."""
    for name, _, pod in workloads(documents):
        for container in containers(pod):
            where, resources = f"{name}/{container['name']}", container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("requests", {})):
                yield f"{where}: resources.requests: must have cpu and memory"
            if "memory" not in resources.get("limits", {}):
                yield f"{where}: resources.limits: must have memory"
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            if "@" not in container["image"] and tag in ("latest", ""):
                yield f"{where}: image: {container['image']} has no fixed version"


def drains(documents: list[Document]) -> Iterator[str]:
    """The grace fits preStop and the drain, and both fit a spot notice."""
    drain = max((float(s.get("SD_DRAIN_S", 60)) for s in _settings(documents)), default=60.0)
    for name, _, pod in workloads(documents):
        served = [c for c in pod["containers"] if c.get("readinessProbe") and c.get("ports")]
        if not served:
            continue
        grace = pod.get("terminationGracePeriodSeconds", 30)
        stop = max(_stop_s(container) for container in served)
        if grace < stop + drain + END_S:
            yield (
                f"{name}: terminationGracePeriodSeconds: {grace} is below preStop {stop} + "
                f"SD_DRAIN_S {drain:g} + {END_S}"
            )
        if grace > LONGEST_GRACE_S:
            yield f"{name}: terminationGracePeriodSeconds: {grace} is longer than a spot notice"


def _stop_s(container: Document) -> int:
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    return int(sleep.get("seconds", 0))


def _settings(documents: list[Document]) -> list[dict[str, str]]:
    return [one.get("data", {}) for one in of(documents, "ConfigMap")]


def selected(documents: list[Document]) -> Iterator[str]:
    """Services, budgets and policies select pods that are there."""
    every = pods(documents)
    for one in of(documents, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = one["spec"]
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector)
        if wanted and not any(wanted.items() <= pod.labels.items() for pod in every):
            yield f"{one['kind']}/{one['metadata']['name']}: selects no pod: {wanted}"


def patient(documents: list[Document]) -> Iterator[str]:
    """The balancer waits longer than the service does for a request."""
    longest = max(
        (float(one.get("SD_REQUEST_TIMEOUT_S", REQUEST_TIMEOUT_S)) for one in _settings(documents)),
        default=REQUEST_TIMEOUT_S,
    )
    for one in of(documents, "LoadBalancerConfiguration"):
        attributes = {a["key"]: a["value"] for a in one["spec"].get("loadBalancerAttributes", [])}
        idle = float(attributes.get("idle_timeout.timeout_seconds", 60))
        if idle <= longest:
            yield (
                f"LoadBalancerConfiguration/{one['metadata']['name']}: idle_timeout: {idle:g} s "
                f"cuts requests that may take {longest:g} s"
            )


def released(documents: list[Document]) -> Iterator[str]:
    """Empty nodes leave together: a budget of nodes that names no reason is for them, too."""
    for one in of(documents, "NodePool"):
        for budget in one["spec"]["disruption"].get("budgets", []):
            if budget["nodes"] != "100%" and "Empty" in budget.get("reasons", ["Empty"]):
                yield (
                    f"NodePool/{one['metadata']['name']}: budgets: {budget['nodes']} is also for "
                    "empty nodes, which leave one by one; name reasons"
                )


def scaled(documents: list[Document]) -> Iterator[str]:
    """A scaler's target is there, and does not set its own number of pods."""
    targets = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    for one in of(documents, "ScaledObject", "HorizontalPodAutoscaler"):
        reference = one["spec"]["scaleTargetRef"]
        target = targets.get((reference.get("kind", "Deployment"), reference["name"]))
        where = f"{one['kind']}/{one['metadata']['name']}"
        if target is None:
            yield f"{where}: scaleTargetRef: {reference['name']} is not here"
        elif "replicas" in target["spec"]:
            yield f"{where}: its target sets replicas, and would be reset by every apply"


Rule = Callable[[list[Document]], Iterator[str]]
RULES: tuple[Rule, ...] = (
    hardened,
    bounded,
    drains,
    selected,
    placed,
    scaled,
    released,
    patient,
    offered,
    manageable,
    restricted,
    connected,
    routed,
    addressed,
    supplied,
    bound,
    reachable,
)
