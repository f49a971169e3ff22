"""The kustomization of one deployment: deploy/kubernetes with the spec's values."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from sd_aws_eks.spec import END_S, FORGET_S, EksSpec

KUBERNETES = Path(__file__).resolve().parents[3] / "kubernetes"
#: The image's name in the manifests, which stands until one is built: no registry holds it.
UNBUILT = "stable-diffusion:not-built"
#: What only Terraform knows of a queue; install.sh writes its output `workers` there.
WORKERS = "workers.env"
_UNKNOWN = ("WORKER_QUEUE_URLS", "QUEUE_URL", "QUEUE_URL_PRIORITY")
HEADER = "# Written by bentoctl generate and bentoctl build: the next of them overwrites edits.\n"
_CAPACITY = {"spot-first": ["spot", "on-demand"], "spot": ["spot"], "on-demand": ["on-demand"]}
_RESOURCES = {"nvidia": "nvidia.com/gpu", "neuron": "aws.amazon.com/neuron"}


def write(
    folder: Path, name: str, spec: EksSpec, image: str | None, env: dict[str, str] | None
) -> list[str]:
    """Copy base and components, and write the kustomization that `kubectl apply -k` takes."""
    for part in ("base", "components"):
        shutil.copytree(KUBERNETES / part, folder / part, dirs_exist_ok=True)
    target = folder / "deployment" / "kustomization.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(HEADER + _dump(kustomization(name, spec, image, env)), encoding="utf-8")
    workers = target.with_name(WORKERS)
    if spec.async_ and not workers.exists():
        workers.write_text("".join(f"{name}=unknown-yet\n" for name in _UNKNOWN))
    return [str(target)]


def kustomization(
    name: str, spec: EksSpec, image: str | None, env: dict[str, str] | None
) -> dict[str, Any]:
    """The document; it names nothing of the account but the image."""
    document: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../base"],
        "components": [f"../components/{part}" for part in components(spec)],
        "configMapGenerator": [
            {
                "name": "settings",
                "namespace": "stable-diffusion",
                "behavior": "merge",
                "literals": [f"{key}={value}" for key, value in settings(spec, env).items()],
                **({"envs": [WORKERS]} if spec.async_ else {}),
            }
        ],
        "images": [_image(image or UNBUILT)],
        "patches": patches(name, spec),
    }
    return document


def components(spec: EksSpec) -> list[str]:
    """Which parts of the tree this deployment takes."""
    chosen = {
        spec.accelerator: True,
        "gateway": not spec.async_,
        "scaling": not spec.async_,
        "queue": spec.async_,
        "image-snapshot": spec.image_snapshot_id is not None,
        "model-s3": spec.model_bucket is not None,
        "api-keys": spec.api_keys_parameter is not None,
    }
    return [part for part, wanted in chosen.items() if wanted]


def settings(spec: EksSpec, env: dict[str, str] | None) -> dict[str, str]:
    """The service's variables: what the spec implies, then the user's own, which win."""
    implied = {"SD_PRECISION": spec.precision, "SD_DRAIN_S": str(spec.drain_s)}
    if spec.model and not spec.model_bucket:  # a mounted one is the component's business
        implied["SD_MODEL"] = spec.model
    return {**implied, **(env or {})}


def patches(name: str, spec: EksSpec) -> list[dict[str, Any]]:
    """The spec's values on the tree's objects."""
    chosen = [
        _patch("EC2NodeClass", *_node_class(name, spec)),
        _patch("NodePool", *_node_pool(spec)),
        _patch("Deployment", *_deployment(spec)),
        _patch("ScaledObject", *_scaling(spec)),
    ]
    if not spec.async_:
        chosen += [
            _patch("LoadBalancerConfiguration", *_balancer(spec)),
            _patch("TargetGroupConfiguration", *_targets(spec)),
        ]
    if spec.certificate_arn:
        chosen.append(_patch("Gateway", *_encrypted()))
    if spec.model_bucket:
        chosen.append(_patch("PersistentVolume", *_volume(spec)))
    return chosen


def _node_class(name: str, spec: EksSpec) -> list[tuple[str, Any]]:
    tags = [{"tags": {"karpenter.sh/discovery": name}}]
    data: dict[str, Any] = {"volumeSize": f"{spec.volume_gib}Gi"}
    if spec.image_snapshot_id:
        data["snapshotID"] = spec.image_snapshot_id
    version = spec.bottlerocket_version
    alias = version if version == "latest" else f"v{version}"
    return [
        ("/spec/role", f"{name}-karpenter-node"),
        ("/spec/subnetSelectorTerms", tags),
        ("/spec/securityGroupSelectorTerms", tags),
        ("/spec/amiSelectorTerms/0/alias", f"bottlerocket@{alias}"),
        ("/spec/tags/deployment", name),
        *((f"/spec/blockDeviceMappings/1/ebs/{key}", value) for key, value in data.items()),
    ]


def _node_pool(spec: EksSpec) -> list[tuple[str, Any]]:
    devices = max(one.devices for one in spec.instances)
    # one more than is needed, for a rolling update; and no node's spare devices count
    limit = spec.max_replicas + devices
    return [
        (f"/spec/limits/{_escaped(_RESOURCES[spec.accelerator])}", str(limit)),
        ("/spec/template/spec/requirements/0/values", list(spec.instance_types)),
        ("/spec/template/spec/requirements/1/values", _CAPACITY[spec.capacity]),
    ]


def _deployment(spec: EksSpec) -> list[tuple[str, Any]]:
    container = "/spec/template/spec/containers/0"
    smallest = spec.instances[0]
    share = smallest.memory_gib // smallest.devices
    memory = [
        (f"{container}/resources/requests/memory", f"{round(0.7 * share)}Gi"),
        (f"{container}/resources/limits/memory", f"{round(0.8 * share)}Gi"),
    ]
    if spec.async_:  # a worker hands back what it cannot finish: its grace is the component's
        return memory
    grace = "/spec/template/spec/terminationGracePeriodSeconds"
    return [*memory, (grace, FORGET_S + spec.drain_s + END_S)]


def _scaling(spec: EksSpec) -> list[tuple[str, Any]]:
    numbers = [
        ("/spec/minReplicaCount", spec.min_replicas),
        ("/spec/maxReplicaCount", spec.max_replicas),
    ]
    if not spec.async_:
        target = "/spec/triggers/0/metadata/targetValue"
        return [*numbers, (target, str(spec.waiting_per_replica))]
    return [
        *numbers,
        *_queue_trigger(0, "QUEUE_URL", spec),
        *_queue_trigger(1, "QUEUE_URL_PRIORITY", spec),
    ]


def _queue_trigger(index: int, variable: str, spec: EksSpec) -> list[tuple[str, Any]]:
    """The queue's address from the workers' environment: it has the account's number in it."""
    metadata = f"/spec/triggers/{index}/metadata"
    return [
        (f"{metadata}/queueURL", None),
        (f"{metadata}/queueURLFromEnv", variable),
        (f"{metadata}/awsRegion", spec.region),
    ]


def _balancer(spec: EksSpec) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("/spec/scheme", "internal" if spec.internal else "internet-facing"),
        # never empty: the controller takes that for the whole world
        ("/spec/sourceRanges", list(spec.allowed_cidrs) or [spec.vpc_cidr]),
    ]
    if spec.certificate_arn:
        listener = {
            "protocolPort": "HTTPS:443",
            "defaultCertificate": spec.certificate_arn,
            "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        }
        found.append(("/spec/listenerConfigurations", [listener]))
    return found


def _targets(spec: EksSpec) -> list[tuple[str, Any]]:
    attributes = "/spec/defaultConfiguration/targetGroupAttributes/0/value"
    return [(attributes, str(FORGET_S + spec.drain_s))]


def _encrypted() -> list[tuple[str, Any]]:
    return [
        ("/spec/listeners/0/name", "https"),
        ("/spec/listeners/0/port", 443),
        ("/spec/listeners/0/protocol", "HTTPS"),
    ]


def _volume(spec: EksSpec) -> list[tuple[str, Any]]:
    return [
        ("/spec/csi/volumeHandle", f"{spec.model_bucket}-{spec.model_prefix}".replace("/", "-")),
        ("/spec/csi/volumeAttributes/bucketName", spec.model_bucket),
        ("/spec/mountOptions/-", f"prefix {spec.model_prefix}"),
        ("/spec/mountOptions/-", f"region {spec.region}"),
    ]


def _patch(kind: str, *changes: tuple[str, Any]) -> dict[str, Any]:
    """A JSON patch on the one object of this kind: `add` also replaces, None removes."""
    operations = [
        {"op": "remove", "path": path}
        if value is None
        else {"op": "add", "path": path, "value": value}
        for path, value in changes
    ]
    return {"target": {"kind": kind}, "patch": _dump(operations)}


def _image(uri: str) -> dict[str, str]:
    named, at, digest = uri.partition("@")
    if at:
        return {"name": "stable-diffusion", "newName": named, "digest": digest}
    named, _, tag = uri.rpartition(":")
    return {"name": "stable-diffusion", "newName": named, "newTag": tag}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases: people read these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(document: Any) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100))


def _escaped(key: str) -> str:
    """A key inside a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
