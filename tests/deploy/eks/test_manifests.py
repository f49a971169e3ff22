"""Every overlay and every ready configuration renders to valid manifests; wrong ones are caught."""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.check import manifests
from deploy.check.manifests import OVERLAYS, ROOT, Document, generated, problems, render
from deploy.check.nodes import requests, room
from deploy.check.pods import of, pods
from deploy.check.ray import offers

pytestmark = pytest.mark.skipif(
    not shutil.which("kubectl"), reason="kubectl is not installed: manifests cannot be rendered"
)
READY = sorted((ROOT / "deploy" / "eks").glob("*.yaml"))
FOLDERS = sorted(path.parent for path in OVERLAYS.glob("*/kustomization.yaml"))


@functools.cache
def rendered(path: Path) -> list[Document]:
    """The objects of an overlay's folder, or of a ready configuration's file."""
    if path.is_dir():
        return render(path)
    with tempfile.TemporaryDirectory() as folder:
        generated(path, Path(folder))
        return render(Path(folder) / "kubernetes" / "deployment")


@pytest.mark.parametrize(
    "path", [*FOLDERS, *READY], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_valid(path: Path) -> None:
    assert problems(rendered(path)) == []


def one(documents: list[Document], kind: str) -> Document:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod(documents: list[Document]) -> Document:
    spec: Document = one(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def server(documents: list[Document]) -> Document:
    container: Document = pod(documents)["containers"][0]
    return container


def data_volume(documents: list[Document]) -> Document:
    (found,) = [
        mapping["ebs"]
        for mapping in one(documents, "EC2NodeClass")["spec"]["blockDeviceMappings"]
        if mapping["deviceName"] == "/dev/xvdb"
    ]
    ebs: Document = found
    return ebs


#: (what somebody might do to the GPU overlay, words of the line that tells)
MUTATIONS: list[tuple[Callable[[list[Document]], Any], tuple[str, ...]]] = [
    (lambda d: pod(d).update(restartpolicy="Always"), ("Deployment", "restartpolicy")),
    (lambda d: server(d).update(image="a/sd:latest"), ("image:", "fixed version")),
    (lambda d: server(d).update(image="registry:5000/sd"), ("image:", "fixed version")),
    (lambda d: server(d)["resources"].pop("limits"), ("limits", "memory")),
    (lambda d: server(d)["securityContext"].pop("readOnlyRootFilesystem"), ("readOnlyRoot",)),
    (lambda d: pod(d)["securityContext"].pop("seccompProfile"), ("seccomp", "RuntimeDefault")),
    (lambda d: pod(d)["securityContext"].update(runAsNonRoot=False), ("not root",)),
    (lambda d: pod(d).update(terminationGracePeriodSeconds=60), ("below preStop 20",)),
    (lambda d: pod(d).update(terminationGracePeriodSeconds=200), ("spot notice",)),
    (lambda d: pod(d).update(tolerations=[]), ("tolerations:", "nvidia.com/gpu")),
    (lambda d: pod(d)["nodeSelector"].update({"a": "b"}), ("nodeSelector:", "no NodePool")),
    (lambda d: one(d, "Deployment")["spec"].update(replicas=2), ("sets replicas",)),
    (lambda d: one(d, "Service")["spec"]["selector"].update(a="b"), ("selects no pod",)),
    (lambda d: one(d, "ScaledObject")["spec"]["scaleTargetRef"].update(name="x"), ("not here",)),
    (
        lambda d: one(d, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(scaleTo="1"),
        ("scaleTo",),
    ),
    (lambda d: one(d, "ScaledObject")["spec"].update(scaleOnInFlight=True), ("scaleOnInFlight",)),
    (
        lambda d: one(d, "NodePool")["spec"]["disruption"].update(consolidationPolicy="WhenIdle"),
        ("NodePool", "WhenIdle"),
    ),
    (lambda d: one(d, "NodePool")["spec"].update(ttlSecondsAfterEmpty=30), ("ttlSeconds",)),
    (
        lambda d: one(d, "EC2NodeClass")["spec"]["amiSelectorTerms"][0].update(
            alias="al2023@latest"
        ),
        ("EC2NodeClass", "al2023"),
    ),
    (lambda d: data_volume(d).update(snapshotID="not-taken"), ("EC2NodeClass", "not-taken")),
    (lambda d: data_volume(d).update(volumeInitializationRate=300), ("snapshotID", "dependency")),
    (
        lambda d: one(d, "Deployment")["spec"]["template"]["metadata"].pop("annotations"),
        ("Deployment", "inject-java", "restricted"),
    ),
    (lambda d: one(d, "LoadBalancerConfiguration")["spec"].pop("sourceRanges"), ("sourceRanges",)),
    (
        lambda d: one(d, "HTTPRoute")["spec"]["rules"][0].update(
            backendRefs=[{"name": "stable-diffusion", "port": 80}]
        ),
        ("HTTPRoute", "backendRefs"),
    ),
    (lambda d: one(d, "Gateway").update(apiVersion="gateway.networking.k8s.io/v9"), ("no schema",)),
]


@pytest.mark.parametrize(("mutate", "words"), MUTATIONS, ids=[" ".join(m[1]) for m in MUTATIONS])
def test_a_mistake_is_caught(
    mutate: Callable[[list[Document]], Any], words: tuple[str, ...]
) -> None:
    documents = copy.deepcopy(rendered(OVERLAYS / "gpu"))
    mutate(documents)
    told = problems(documents)
    assert told, "nothing was said"
    assert any(all(word in line for word in words) for line in told), told


def test_a_policy_that_keeps_traces_in_is_caught() -> None:
    documents = copy.deepcopy(rendered(ROOT / "deploy" / "eks" / "gpu-production.yaml"))
    egress = one(documents, "NetworkPolicy")["spec"]["egress"]
    (collector,) = [e for e in egress if e["ports"][0]["port"] == 4316]
    egress.remove(collector)
    assert any("cannot reach the collector at 4316" in line for line in problems(documents))


def test_the_specs_values_arrive() -> None:
    documents = rendered(ROOT / "deploy" / "eks" / "gpu-production.yaml")
    balancer = one(documents, "LoadBalancerConfiguration")["spec"]
    assert balancer["scheme"] == "internet-facing"
    assert balancer["listenerConfigurations"][0]["protocolPort"] == "HTTPS:443"
    assert [each["port"] for each in one(documents, "Gateway")["spec"]["listeners"]] == [80, 443]
    routes = {r["metadata"]["name"]: r["spec"] for r in of(documents, "HTTPRoute")}
    assert routes["to-https"]["rules"][0]["filters"][0]["requestRedirect"]["scheme"] == "https"
    sections = {name: r["parentRefs"][0]["sectionName"] for name, r in routes.items()}
    assert sections == {"to-https": "http", "stable-diffusion": "https"}
    settings = one(documents, "ConfigMap")["data"]
    assert settings["SD_MODEL"] == "/models/current" and settings["SD_MAX_QUEUE_S"] == "60"
    volume = one(documents, "PersistentVolume")["spec"]
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "my-models"
    assert "prefix stable-diffusion-xl-base-1.0/" in volume["mountOptions"]
    pool = one(documents, "NodePool")["spec"]["template"]["spec"]["requirements"]
    assert pool[0]["values"] == ["g6.xlarge", "g5.xlarge"] and pool[1]["values"] == ["on-demand"]
    assert any(e["name"] == "SD_API_KEYS" and "value" not in e for e in server(documents)["env"])
    scaling = one(documents, "ScaledObject")["spec"]
    assert (scaling["minReplicaCount"], scaling["maxReplicaCount"]) == (2, 20)


def changed(ready: str, folder: Path, **fields: object) -> list[Document]:
    """The objects of a ready configuration with other fields; None leaves one out."""
    document = yaml.safe_load((ROOT / "deploy" / "eks" / ready).read_text())
    document["spec"] |= fields
    document["spec"] = {name: its for name, its in document["spec"].items() if its is not None}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(document))
    documents = rendered(path)
    assert problems(documents) == []
    return documents


VPC: Document = {
    "vpc_id": "vpc-0123456789abcdef0",
    "private_subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "public_subnet_ids": ["subnet-0123456789abcdef2", "subnet-0123456789abcdef3"],
}


def test_subnets_of_a_vpc_are_named(tmp_path: Path) -> None:
    """Tags would be put over its owner's, and taken away with the deployment."""
    documents = changed("gpu.yaml", tmp_path, **VPC)
    nodes = one(documents, "EC2NodeClass")["spec"]
    assert nodes["subnetSelectorTerms"] == [{"id": name} for name in VPC["private_subnet_ids"]]
    assert nodes["securityGroupSelectorTerms"] == [{"tags": {"karpenter.sh/discovery": "sd-gpu"}}]
    balancer = one(documents, "LoadBalancerConfiguration")["spec"]["loadBalancerSubnets"]
    assert balancer == [{"identifier": name} for name in VPC["public_subnet_ids"]]


def test_an_internal_balancer_is_in_private_subnets(tmp_path: Path) -> None:
    documents = changed("gpu.yaml", tmp_path, **{**VPC, "internal": True})
    balancer = one(documents, "LoadBalancerConfiguration")["spec"]
    assert balancer["scheme"] == "internal"
    subnets = [one["identifier"] for one in balancer["loadBalancerSubnets"]]
    assert subnets == VPC["private_subnet_ids"]


def test_without_networks_the_balancer_is_internal(tmp_path: Path) -> None:
    """Callers in the VPC have the NAT gateway's address when they ask a public one."""
    documents = changed("gpu.yaml", tmp_path, allowed_cidrs=None)
    balancer = one(documents, "LoadBalancerConfiguration")["spec"]
    assert balancer["scheme"] == "internal" and balancer["sourceRanges"] == ["10.42.0.0/16"]


def test_workers_of_a_queue() -> None:
    documents = rendered(ROOT / "deploy" / "eks" / "queue.yaml")
    kinds = {document["kind"] for document in documents}
    assert kinds.isdisjoint({"Service", "Gateway", "HTTPRoute"})
    scaling = one(documents, "ScaledObject")["spec"]
    assert scaling["minReplicaCount"] == 0
    settings = one(documents, "ConfigMap")["data"]
    for trigger in scaling["triggers"]:
        # KEDA reads it of the workers' environment
        assert trigger["metadata"]["queueURLFromEnv"] in settings
        assert "queueURL" not in trigger["metadata"]
    assert pod(documents)["terminationGracePeriodSeconds"] == 115


def test_several_runtimes_of_one_queue() -> None:
    documents = rendered(ROOT / "deploy" / "eks" / "queue-several.yaml")

    def of(kind: str, runtime: str) -> Document:
        namespace = f"stable-diffusion-{runtime}"
        here = [d for d in documents if d["metadata"].get("namespace") == namespace]
        return one(here, kind)

    scaling = {name: of("ScaledObject", name)["spec"] for name in ("sd15", "sdxl", "dynamic")}
    assert [s["minReplicaCount"] for s in scaling.values()] == [1, 0, 0]
    assert [s["maxReplicaCount"] for s in scaling.values()] == [4, 20, 4]
    assert [s["pollingInterval"] for s in scaling.values()] == [5, 5, 10]
    assert [s["cooldownPeriod"] for s in scaling.values()] == [60, 300, 60]
    lengths = [[t["metadata"]["queueLength"] for t in s["triggers"]] for s in scaling.values()]
    assert lengths == [["16", "5"], ["10", "5"], ["4", "5"]]
    settings = of("ConfigMap", "dynamic")["data"]
    assert settings["SD_MODELS_DIR"] == "/models/current" and "SD_MODEL" not in settings
    assert settings["SD_MODELS_MEMORY_GB"] == "12"
    assert of("ConfigMap", "sdxl")["data"]["SD_MODEL"] == "/models/current"
    subject = of("RoleBinding", "sdxl")["subjects"][0]
    assert subject["namespace"] == "stable-diffusion-sdxl"


def test_in_a_trace_each_runtime_has_its_name(tmp_path: Path) -> None:
    documents = changed("queue-several.yaml", tmp_path, tracing=True)
    named = {d["metadata"].get("namespace"): d["data"] for d in of(documents, "ConfigMap")}
    for runtime in ("sd15", "sdxl", "dynamic"):
        settings = named[f"stable-diffusion-{runtime}"]
        assert settings["OTEL_SERVICE_NAME"] == f"stable-diffusion-{runtime}"
        assert settings["OTEL_EXPORTER_OTLP_ENDPOINT"].startswith("http://cloudwatch-agent.")


FROM_SNAPSHOT = {"snapshotID": "snap-0123456789abcdef0", "volumeInitializationRate": 300}


@pytest.mark.parametrize("ready", ["queue.yaml", "inf2.yaml"])
def test_nodes_from_a_snapshot(ready: str, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / ready).read_text())
    assert data_volume(rendered(ROOT / "deploy" / "eks" / ready)).keys().isdisjoint(FROM_SNAPSHOT)
    document["spec"]["image_snapshot_id"] = FROM_SNAPSHOT["snapshotID"]
    (tmp_path / ready).write_text(yaml.safe_dump(document))
    documents = rendered(tmp_path / ready)
    assert problems(documents) == []
    assert data_volume(documents).items() >= FROM_SNAPSHOT.items()


def node_class(path: Path) -> Document:
    found: Document = one(rendered(path), "EC2NodeClass")["spec"]
    return found


def test_images_are_pulled_in_parallel_or_come_from_a_snapshot(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "inf2.yaml").read_text())
    for name, fields, parallel in (
        ("latest", {}, True),
        ("new", {"bottlerocket_version": "1.51.0"}, True),
        ("old", {"bottlerocket_version": "1.30.0"}, False),
        ("snapshot", {"image_snapshot_id": FROM_SNAPSHOT["snapshotID"]}, False),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**document, "spec": {**document["spec"], **fields}}))
        found = node_class(path)
        assert ("soci" in found["userData"]) is parallel, name
        assert (found.get("instanceStorePolicy") == "RAID0") is parallel, name
        assert "device-ownership-from-security-context = true" in found["userData"], name
        tomllib.loads(found["userData"])


@pytest.mark.parametrize("shared", [2, 3, 4])
def test_pods_that_share_a_gpu(shared: int, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "gpu.yaml").read_text())
    document["spec"]["pods_per_gpu"] = shared
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    documents = rendered(tmp_path / "own.yaml")
    assert problems(documents) == []
    settings = tomllib.loads(node_class(tmp_path / "own.yaml")["userData"])["settings"]
    plugin = settings["kubelet-device-plugins"]["nvidia"]
    assert plugin["device-sharing-strategy"] == "time-slicing"
    assert plugin["time-slicing"]["replicas"] == shared
    (pod_of_service,) = pods(documents)
    wanted = requests(pod_of_service)
    for name in ("cpu", "memory"):
        assert shared * wanted[name] <= room("g5.xlarge")[name], "all of them fit the node"


def test_several_services_share_nothing_but_the_gateway() -> None:
    documents = rendered(ROOT / "deploy" / "eks" / "several.yaml")
    names = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(set(names)) == len(names)
    assert len(of(documents, "Gateway")) == 1
    routes = {d["metadata"]["namespace"]: d["spec"] for d in of(documents, "HTTPRoute")}
    assert set(routes) == {f"stable-diffusion-{name}" for name in ("sd", "sdxl", "neuron")}
    assert routes["stable-diffusion-neuron"]["hostnames"] == ["neuron.images.example.com"]
    paths = [rule["matches"][0]["path"]["value"] for rule in routes["stable-diffusion-sd"]["rules"]]
    assert paths == ["/sd/metrics", "/sd"]
    labels = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]["stable-diffusion/nodes"]
        for d in of(documents, "NodePool")
    }
    assert labels["stable-diffusion-sdxl-nvidia"] == "sdxl-nvidia"
    (volume,) = of(documents, "PersistentVolume")
    assert volume["spec"]["claimRef"]["namespace"] == "stable-diffusion-sdxl"


@pytest.mark.parametrize("host", ["bentoml", "ray"])
def test_another_model_is_another_volume(host: str, tmp_path: Path) -> None:
    """Kubernetes refuses to change what a volume mounts, and which volume a claim has."""
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "gpu.yaml").read_text())
    names = []
    for number, model in enumerate(("s3://models/sd", "s3://models/sdxl", "s3://others/sd")):
        document["spec"] |= {"model": model, "host": host}
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(document))
        documents = rendered(path)
        assert problems(documents) == []
        volume = one(documents, "PersistentVolume")
        claim = one(documents, "PersistentVolumeClaim")
        name = volume["metadata"]["name"]
        assert claim["spec"]["volumeName"] == volume["spec"]["csi"]["volumeHandle"] == name
        assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"] == name
        names.append(name)
    assert len(set(names)) == 3


def test_a_list_of_one_service(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "several.yaml").read_text())
    document["spec"]["services"] = document["spec"]["services"][:1]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    documents = rendered(tmp_path / "own.yaml")
    assert problems(documents) == []
    assert one(documents, "HTTPRoute")["metadata"]["namespace"] == "stable-diffusion-sd"


@pytest.mark.parametrize(
    ("fields", "groups"),
    [
        ({"instance_types": ["inf2.xlarge", "inf2.8xlarge"]}, {"inf2-xlarge": (2, 3)}),
        (
            {"instance_types": ["inf2.24xlarge", "inf2.48xlarge"]},
            {"inf2-24xlarge": (12, 90), "inf2-48xlarge": (24, 180)},
        ),
        ({"instance_types": ["trn1.2xlarge"]}, {"trn1-2xlarge": (2, 7)}),
    ],
)
def test_ray_on_every_size_of_neuron(
    fields: Document, groups: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "ray-inf2.yaml").read_text())
    document["spec"] |= fields
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    documents = rendered(tmp_path / "own.yaml")
    assert problems(documents) == []
    cluster = one(documents, "RayService")["spec"]["rayClusterConfig"]
    found = {g["groupName"]: offers(g) for g in cluster["workerGroupSpecs"]}
    assert {k: (v["neuron_cores"], v["CPU"]) for k, v in found.items()} == groups


def test_rays_dashboard_is_behind_a_sign_in(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "eks" / "ray-gpu.yaml").read_text())
    arn = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d"
    pool = "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_abc"
    users = {"user_pool_arn": pool, "client_id": "1a2b", "domain": "my-users"}
    document["spec"] |= {"certificate_arn": arn, "dashboard_users": users}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    documents = rendered(tmp_path / "own.yaml")
    assert problems(documents) == []
    (route,) = [
        d["spec"] for d in of(documents, "HTTPRoute") if d["metadata"]["name"] == "dashboard"
    ]
    assert route["parentRefs"][0]["sectionName"] == "https"
    assert route["rules"][0]["filters"][0]["extensionRef"]["name"] == "dashboard"
    (action,) = one(documents, "ListenerRuleConfiguration")["spec"]["actions"]
    assert action["authenticateCognitoConfig"]["onUnauthenticatedRequest"] == "authenticate"
    one(documents, "ListenerRuleConfiguration")["spec"]["actions"][0]["authenticateCognitoConfig"][
        "onUnauthenticatedRequest"
    ] = "allow"
    assert any("'allow'" in line or "authenticate" in line for line in problems(documents))


def test_an_overlay_with_a_snapshot(tmp_path: Path) -> None:
    tree = tmp_path / "kubernetes"
    shutil.copytree(OVERLAYS.parent, tree)
    overlay = tree / "overlays" / "queue" / "kustomization.yaml"
    document = yaml.safe_load(overlay.read_text())
    document["components"].append("../../components/image-snapshot")
    overlay.write_text(yaml.safe_dump(document))
    told = problems(render(overlay.parent))
    assert len(told) == 1 and "not-taken" in told[0]  # until there is one
    volume = tree / "components" / "image-snapshot" / "volume.yaml"
    volume.write_text(volume.read_text().replace("not-taken", str(FROM_SNAPSHOT["snapshotID"])))
    documents = render(overlay.parent)
    assert problems(documents) == []
    assert data_volume(documents).items() >= FROM_SNAPSHOT.items()


def test_settings_are_those_of_the_service() -> None:
    from runnables.settings import Settings

    known = {f"SD_{name.upper()}" for name in Settings.model_fields}
    for folder in [*FOLDERS, *READY]:
        for config in (d for d in rendered(folder) if d["kind"] == "ConfigMap"):
            assert {name for name in config["data"] if name.startswith("SD_")} <= known


def test_probes_and_scaling_ask_for_what_the_service_answers() -> None:
    from starlette.testclient import TestClient

    from api.app import Api
    from runnables.runnable import StableDiffusionRunnable
    from runnables.settings import Settings

    client = TestClient(Api(StableDiffusionRunnable(Settings())).app())
    assert client.get("/no-such-path").status_code == 404
    container = server(rendered(OVERLAYS / "gpu"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        # 503 while there is no model
        assert client.get(container[probe]["httpGet"]["path"]).status_code in (200, 503)
    source = (ROOT / "runnables" / "metrics.py").read_text()
    for trigger in one(rendered(OVERLAYS / "gpu"), "ScaledObject")["spec"]["triggers"]:
        assert f'"{trigger["metadata"]["valueLocation"]}"' in source
        # KEDA asks pods, not the Service: the port in the address is the container's
        assert f":{container['ports'][0]['containerPort']}/metrics" in trigger["metadata"]["url"]


def test_a_wrong_kustomization_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["missing.yaml"]}))
    with pytest.raises(manifests.CannotRender, match=r"missing\.yaml"):
        render(tmp_path)
