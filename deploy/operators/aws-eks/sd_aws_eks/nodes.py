"""Patches on the nodes that Karpenter makes: a pool per service, and Ray's without accelerators."""

from __future__ import annotations

from sd_aws_eks.patching import Changes, Document, escaped, patch
from sd_aws_eks.placement import TREE, Placement
from sd_aws_eks.spec import EksSpec

RESOURCES = {"nvidia": "nvidia.com/gpu", "neuron": "aws.amazon.com/neuron"}
#: Bottlerocket's settings: a pod that is not root may open its Neuron device.
DEVICES = """\
[settings.kubernetes]
device-ownership-from-security-context = true
"""
#: Layers of an image in parts at once, unpacked while others come (SOCI's parallel pull).
PARALLEL_PULL = """\
[settings.container-runtime]
snapshotter = "soci"

[settings.container-runtime-plugins.soci-snapshotter]
pull-mode = "parallel-pull-unpack"
"""
#: Each GPU counts as several. The resource keeps its name, so that Karpenter knows it.
SHARED_GPU = """\
[settings.kubelet-device-plugins.nvidia]
device-sharing-strategy = "time-slicing"

[settings.kubelet-device-plugins.nvidia.time-slicing]
replicas = {pods}
rename-by-default = false
fail-requests-greater-than-one = true
"""
_CAPACITY = {"spot-first": ["spot", "on-demand"], "spot": ["spot"], "on-demand": ["on-demand"]}


def patches(name: str, spec: EksSpec, placement: Placement) -> list[Document]:
    """Fill in every class and pool: the cluster's names, and the accelerator's with spec values."""
    chosen = []
    for kind in pools(spec):
        tree, own = f"{TREE}-{kind}", f"{placement.namespace}-{kind}"
        accelerated = kind == spec.accelerator
        node_class = [*_class(name, spec), *(_volume(spec) if accelerated else [])]
        pool: Changes = [
            ("/spec/template/spec/nodeClassRef/name", own),
            ("/spec/template/metadata/labels/stable-diffusion~1nodes", label(placement, kind)),
            *(_pool(spec) if accelerated else []),
        ]
        rename: Changes = [("/metadata/name", own)] if own != tree else []
        chosen.append(patch("EC2NodeClass", [*node_class, *rename], tree))
        chosen.append(patch("NodePool", [*pool, *rename], tree))
    return chosen


def pools(spec: EksSpec) -> list[str]:
    """The kinds of nodes that a service has."""
    return [spec.accelerator, *(["general"] if spec.host == "ray" else [])]


def label(placement: Placement, kind: str) -> str:
    """The value of the label that pods select nodes by."""
    return f"{placement.name}-{kind}" if placement.name else kind


def _class(name: str, spec: EksSpec) -> Changes:
    subnets: list[dict[str, object]] = [{"tags": {"karpenter.sh/discovery": name}}]
    groups = subnets
    if spec.vpc_id:
        subnets = [{"id": one} for one in spec.private_subnet_ids]
    if spec.cluster:  # EKS itself tags the cluster's security group so
        groups = [{"tags": {"aws:eks:cluster-name": spec.cluster}}]
    version = spec.bottlerocket_version
    alias = version if version == "latest" else f"v{version}"
    found: Changes = [
        ("/spec/role", spec.node_role or f"{name}-{spec.region}-karpenter-node"),
        ("/spec/subnetSelectorTerms", subnets),
        ("/spec/securityGroupSelectorTerms", groups),
        ("/spec/amiSelectorTerms/0/alias", f"bottlerocket@{alias}"),
        ("/spec/tags/deployment", name),
    ]
    return [*found, *((f"/spec/tags/{escaped(key)}", value) for key, value in spec.tags.items())]


def _volume(spec: EksSpec) -> Changes:
    """Set how images come to a node: from a snapshot, or pulled in parallel; never both.

    Karpenter uses an instance's own disks, where it has some, in the place of the data volume.
    """
    volume = "/spec/blockDeviceMappings/1/ebs"
    found: Changes = [(f"{volume}/volumeSize", f"{spec.volume_gib}Gi")]
    settings = [DEVICES] if spec.accelerator == "neuron" else []
    if spec.image_snapshot_id:
        found.append((f"{volume}/snapshotID", spec.image_snapshot_id))
    elif spec.pulls_in_parallel:
        settings.append(PARALLEL_PULL)
        found.append(("/spec/instanceStorePolicy", "RAID0"))
    if spec.pods_per_gpu > 1:
        settings.append(SHARED_GPU.format(pods=spec.pods_per_gpu))
    if settings:
        found.append(("/spec/userData", "\n".join(settings)))
    if spec.capacity_reservation_ids:
        reserved = [{"id": one} for one in spec.capacity_reservation_ids]
        found.append(("/spec/capacityReservationSelectorTerms", reserved))
    return found


def _capacity(spec: EksSpec) -> list[str]:
    reserved = ["reserved"] if spec.capacity_reservation_ids else []
    return [*reserved, *_CAPACITY[spec.capacity]]


def _pool(spec: EksSpec) -> Changes:
    devices = max(one.devices for one in spec.instances)
    # one more than is needed, for a rolling update; and no node's spare devices count
    limit = spec.max_replicas + devices
    if spec.host == "ray":  # KubeRay starts the new cluster beside the old one
        limit = 2 * spec.max_replicas + devices
    found: Changes = [
        (f"/spec/limits/{escaped(RESOURCES[spec.accelerator])}", str(limit)),
        ("/spec/template/spec/requirements/0/values", list(spec.instance_types)),
        ("/spec/template/spec/requirements/1/values", _capacity(spec)),
    ]
    if spec.async_:  # a worker hands back what it holds: its node need not be waited for
        found += [
            ("/spec/disruption/consolidateAfter", "1m"),
            ("/spec/template/spec/terminationGracePeriod", "5m"),
        ]
    return found
