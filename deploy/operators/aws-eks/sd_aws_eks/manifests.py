"""The kustomizations of a deployment: deploy/kubernetes with the spec's values.

One service is one kustomization, `deployment`. Several have one each, `deployment/NAME`, and the
gateway that they share is `deployment/gateway`.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from sd_aws_eks import gateway, nodes, ray
from sd_aws_eks.page import page_image
from sd_aws_eks.patching import HEADER, Changes, Document, dump, image, patch
from sd_aws_eks.placement import TREE, Placement, placements
from sd_aws_eks.spec import END_S, FORGET_S, EksSpec

KUBERNETES = Path(__file__).resolve().parents[3] / "kubernetes"
#: The image's name in the manifests, which stands until one is built: no registry holds it.
UNBUILT = f"{TREE}:not-built"
#: What only Terraform knows of a queue; install.sh writes its output `workers` there.
WORKERS = "workers.env"
_UNKNOWN = ("WORKER_QUEUE_URLS", "QUEUE_URL", "QUEUE_URL_PRIORITY")
#: Where a RayService names images and settings: kustomize has to be told in every folder.
REFERENCES = KUBERNETES / "ray" / "references.yaml"
REQUEST_TIMEOUT_S = 300
#: Where the component model-s3 has the bucket's folder.
MOUNTED = "/models/current"


def write(
    folder: Path, name: str, spec: EksSpec, built: str | None, env: dict[str, str] | None
) -> list[str]:
    """Copy the tree, and write the kustomization that `kubectl apply -k` takes."""
    for part in ("base", "ray", "gateway", "components"):
        shutil.copytree(KUBERNETES / part, folder / part, dirs_exist_ok=True)
    written = [
        _write(folder, place, kustomization(name, alone, built, env, place))
        for place, alone in placements(spec)
    ]
    if spec.services:
        names = [one.name for one in spec.services]
        resources = names if spec.async_ else ["gateway", *names]
        if not spec.async_:
            written.append(_gateway(folder / "deployment" / "gateway", spec, timeout_s(env)))
        top = folder / "deployment" / "kustomization.yaml"
        top.write_text(HEADER + dump({**_KIND, "resources": resources}), encoding="utf-8")
        written.append(top)
    return [str(path) for path in written]


_KIND = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def _write(folder: Path, place: Placement, document: Document) -> Path:
    target = folder / "deployment" / place.name / "kustomization.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(HEADER + dump(document), encoding="utf-8")
    if "configurations" in document:
        shutil.copyfile(REFERENCES, target.with_name(REFERENCES.name))
    workers = target.with_name(WORKERS)
    if any("envs" in one for one in document["configMapGenerator"]) and not workers.exists():
        workers.write_text("".join(f"{name}=unknown-yet\n" for name in _UNKNOWN))
    return target


def _gateway(folder: Path, spec: EksSpec, timeout: int) -> Path:
    folder.mkdir(exist_ok=True)
    target = folder / "kustomization.yaml"
    target.write_text(HEADER + dump(gateway.shared(spec, timeout)), encoding="utf-8")
    return target


def kustomization(
    name: str, spec: EksSpec, built: str | None, env: dict[str, str] | None, place: Placement
) -> Document:
    """A service's document; it names nothing of the account but the image."""
    up = "../.." if place.name else ".."
    on_ray = spec.host == "ray"
    chosen = spec.image_uri or built
    return {
        **_KIND,
        **({"namespace": place.namespace} if place.name else {}),
        "resources": [f"{up}/{'ray' if on_ray else 'base'}"],
        "components": [f"{up}/components/{part}" for part in components(spec, place)],
        **({"configurations": [REFERENCES.name]} if on_ray else {}),
        "configMapGenerator": [
            {
                "name": "settings",
                "namespace": TREE,
                "behavior": "merge",
                "literals": [f"{key}={value}" for key, value in settings(spec, env).items()],
                **({"envs": [WORKERS]} if spec.async_ else {}),
            }
        ],
        "images": _images(spec, chosen),
        "patches": patches(name, spec, place, env),
    }


def _images(spec: EksSpec, chosen: str | None) -> list[dict[str, str]]:
    found = [image(TREE, chosen or UNBUILT)]
    if spec.host == "ray":
        found.append(image(f"{TREE}-ui", spec.page_image_uri or page_image(chosen)))
    return found


def components(spec: EksSpec, place: Placement) -> list[str]:
    """Which parts of the tree a service takes."""
    on_ray = spec.host == "ray"
    chosen = {
        "nodes-general": on_ray,
        f"nodes-{spec.accelerator}": True,
        spec.accelerator: True,
        "gateway": not spec.async_ and not place.shares_gateway,
        "route": not spec.async_ and not on_ray,
        "ray-route": on_ray,
        "https": bool(spec.certificate_arn) and not place.shares_gateway,
        "scaling": not spec.async_ and not on_ray,
        "queue": spec.async_,
        "image-snapshot": spec.image_snapshot_id is not None,
        "model-s3": spec.model_bucket is not None,
        "api-keys": spec.api_keys_parameter is not None,
        "tracing": spec.tracing,
        "ray-dashboard": on_ray and spec.dashboard_users is not None,
    }
    return [part for part, wanted in chosen.items() if wanted]


def settings(spec: EksSpec, env: dict[str, str] | None) -> dict[str, str]:
    """The service's variables: what the spec implies, then the user's own, which win."""
    implied = {"SD_PRECISION": spec.precision, "SD_DRAIN_S": str(spec.drain_s)}
    if spec.model and not spec.model_bucket:  # a mounted one is named by its component
        implied["SD_MODEL"] = spec.model
    if spec.dynamic:
        implied |= {
            "SD_MODELS_DIR": MOUNTED,
            "SD_MODELS_MEMORY_GB": f"{spec.models_memory_gb:g}",
        }
    if spec.tracing:  # in a trace workers are beside the front door
        implied["OTEL_SERVICE_NAME"] = f"{TREE}-{spec.runtime}" if spec.async_ else TREE
    return {**implied, **(env or {})}


def timeout_s(env: dict[str, str] | None) -> int:
    """Return how long the load balancer waits: a little longer than the service does."""
    return int(float((env or {}).get("SD_REQUEST_TIMEOUT_S", REQUEST_TIMEOUT_S))) + 10


def patches(
    name: str, spec: EksSpec, place: Placement, env: dict[str, str] | None
) -> list[Document]:
    """The spec's values on the tree's objects."""
    chosen = nodes.patches(name, spec, place)
    if spec.host == "ray":
        chosen += ray.patches(spec, place, timeout_s(env))
    else:
        chosen += [
            patch("Deployment", _deployment(spec, place)),
            patch("ScaledObject", _scaling(spec, place)),
        ]
    if not spec.async_:
        chosen += gateway.of_service(spec, place)
        if not place.shares_gateway:
            chosen += gateway.patches(spec, timeout_s(env))
    elif place.name:  # kustomize leaves the namespace of a subject with a name as it is
        chosen.append(patch("RoleBinding", [("/subjects/0/namespace", place.namespace)]))
    if spec.model_bucket:
        chosen += _volume(spec, place)
    if spec.dynamic:  # the mounted folder is one of models, and the first model the Bento's
        chosen.append(patch("ConfigMap", [("/data/SD_MODEL", None)], "settings"))
    return chosen


def _deployment(spec: EksSpec, place: Placement) -> Changes:
    container = "/spec/template/spec/containers/0"
    smallest = spec.instances[0]
    share = smallest.memory_gib / smallest.devices / spec.pods_per_gpu
    changes: Changes = [
        (f"{container}/resources/requests/cpu", f"{2000 // spec.pods_per_gpu}m"),
        (f"{container}/resources/requests/memory", f"{round(0.7 * share)}Gi"),
        (f"{container}/resources/limits/memory", f"{round(0.8 * share)}Gi"),
        (
            "/spec/template/spec/nodeSelector/stable-diffusion~1nodes",
            nodes.label(place, spec.accelerator),
        ),
    ]
    if spec.async_:  # a worker hands back what it cannot finish: its grace is the component's
        return changes
    grace = "/spec/template/spec/terminationGracePeriodSeconds"
    return [*changes, (grace, FORGET_S + spec.drain_s + END_S)]


def _scaling(spec: EksSpec, place: Placement) -> Changes:
    numbers: Changes = [
        ("/spec/minReplicaCount", spec.min_replicas),
        ("/spec/maxReplicaCount", spec.max_replicas),
    ]
    if spec.async_:
        return [
            *numbers,
            ("/spec/pollingInterval", spec.polling_s),
            ("/spec/cooldownPeriod", spec.cooldown_s),
            *_queue_trigger(0, "QUEUE_URL", spec.queue_length, spec),
            *_queue_trigger(1, "QUEUE_URL_PRIORITY", spec.priority_queue_length, spec),
        ]
    target = str(spec.requests_per_replica)
    url = f"http://{TREE}.{place.namespace}.svc.cluster.local:3000/metrics"
    for number in (0, 1):
        metadata = f"/spec/triggers/{number}/metadata"
        numbers += [(f"{metadata}/targetValue", target), (f"{metadata}/url", url)]
    return [*numbers, ("/spec/advanced/scalingModifiers/target", target)]


def _queue_trigger(index: int, variable: str, tasks: int, spec: EksSpec) -> Changes:
    """The queue's address from the workers' environment: it has the account's number in it."""
    metadata = f"/spec/triggers/{index}/metadata"
    return [
        (f"{metadata}/queueURL", None),
        (f"{metadata}/queueURLFromEnv", variable),
        (f"{metadata}/awsRegion", spec.region),
        (f"{metadata}/queueLength", str(tasks)),
    ]


def _volume(spec: EksSpec, place: Placement) -> list[Document]:
    """Kubernetes never changes what a volume mounts: another folder is a volume of another name."""
    folder = f"{spec.model_bucket}/{spec.model_prefix}"
    name = f"{place.namespace}-model-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
    changes: Changes = [
        ("/metadata/name", name),
        ("/spec/claimRef/namespace", place.namespace),
        ("/spec/claimRef/name", name),
        ("/spec/csi/volumeHandle", name),
        ("/spec/csi/volumeAttributes/bucketName", spec.model_bucket),
        ("/spec/mountOptions/-", f"prefix {spec.model_prefix}"),
        ("/spec/mountOptions/-", f"region {spec.region}"),
    ]
    claim: Changes = [("/metadata/name", name), ("/spec/volumeName", name)]
    return [patch("PersistentVolume", changes), patch("PersistentVolumeClaim", claim)]
