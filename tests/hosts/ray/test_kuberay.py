"""The KubeRay overlay: what Ray, Kubernetes and the deployments' names say about it."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deploy.check.manifests import OVERLAYS, problems, render
from deploy.check.ray import offers, wanted_by
from hosts.ray.__main__ import CONFIG
from hosts.ray.app import build

COMPONENTS = OVERLAYS.parent / "components"
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


#: overlay -> what a replica asks for beside CPUs, and what each group's pod has of it
ASKED: dict[str, tuple[str, dict[str, int]]] = {
    "ray": ("neuron_cores", {"neuron": 2}),
    "ray-inf2-large": ("neuron_cores", {"inf2-24xlarge": 12, "inf2-48xlarge": 24}),
    "ray-gpu": ("GPU", {"nvidia": 1}),
}


@pytest.fixture(scope="module", params=ASKED)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(overlay: str) -> list[dict[str, Any]]:
    return render(OVERLAYS / overlay)


@pytest.fixture(scope="module")
def service(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one["spec"] for one in objects if one["kind"] == "RayService"]
    return found


def templates(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_objects_are_valid(objects: list[dict[str, Any]]) -> None:
    assert problems(objects) == []


def configs(service: dict[str, Any]) -> list[dict[str, Any]]:
    return [yaml.safe_load(service["serveConfigV2"]), yaml.safe_load(CONFIG.read_text())]


def test_serve_configs_are_rays_and_name_what_the_application_has(service: dict[str, Any]) -> None:
    for config in configs(service):
        (app,) = ServeDeploySchema.model_validate(config).applications
        module, _, name = app.import_path.partition(":")
        assert getattr(importlib.import_module(module), name) is build
        assert {deployment.name for deployment in app.deployments} == {"ingress", "replica"}
        given = config["applications"][0]["deployments"]
        for kept, written in zip(app.deployments, given, strict=True):
            dumped = kept.model_dump()
            assert set(written) <= set(dumped), "Ray drops what it does not know"
            for option, value in written.items():
                if not isinstance(value, dict):
                    assert dumped[option] == value


def test_only_workers_offer_what_replicas_need(overlay: str, service: dict[str, Any]) -> None:
    head, *workers = templates(service)
    assert head["rayStartParams"]["num-cpus"] == "0"
    resource, expected = ASKED[overlay]
    replica = configs(service)[0]["applications"][0]["deployments"][1]
    (asked,) = [wanted for name, wanted in wanted_by(service["serveConfigV2"]) if name == "replica"]
    assert asked[resource] == {"neuron_cores": 2, "GPU": 1}[resource]
    assert {one["groupName"]: offers(one)[resource] for one in workers} == expected
    most = sum(one["maxReplicas"] * expected[one["groupName"]] for one in workers)
    assert replica["autoscaling_config"]["max_replicas"] * asked[resource] <= most


def test_a_pool_may_start_all_workers(
    objects: list[dict[str, Any]], service: dict[str, Any]
) -> None:
    limits: dict[str, int] = {}
    for pool in [one["spec"] for one in objects if one["kind"] == "NodePool"]:
        label = pool["template"]["metadata"]["labels"]["stable-diffusion/nodes"]
        limits |= {f"{label} {name}": int(value) for name, value in pool["limits"].items()}
    _, *workers = templates(service)
    for worker in workers:
        pod = worker["template"]["spec"]
        label = pod["nodeSelector"]["stable-diffusion/nodes"]
        for device, count in pod["containers"][0]["resources"]["limits"].items():
            if "/" in device:
                limits[f"{label} {device}"] -= worker["maxReplicas"] * int(count)
    assert min(limits.values()) >= 0, limits


def small_offer(group: dict[str, Any]) -> None:
    group["rayStartParams"]["resources"] = '"{\\"neuron_cores\\": 1}"'


def head(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda cluster: change(cluster["headGroupSpec"]) and None


def worker(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda cluster: change(cluster["workerGroupSpecs"][0]) and None


def container(group: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = group["template"]["spec"]["containers"][0]
    return found


GCS = [{"name": "gcs", "containerPort": 6379}]
#: (a mistake in the cluster of the RayService, words of the line that tells)
MISTAKES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (worker(small_offer), "neuron_cores 1, but the pod has 2"),
    (worker(small_offer), "replica asks for"),
    (worker(lambda group: group["template"]["spec"].update(tolerations=[])), "tolerations:"),
    (worker(lambda group: group["rayStartParams"].update({"num-gpus": "1"})), "GPU 1, but"),
    (
        head(lambda group: container(group).update(ports=GCS)),
        "no container port is named dashboard",
    ),
    (
        head(lambda group: container(group).update(ports=GCS)),
        "no Service stable-diffusion-serve-svc",
    ),
    (head(lambda group: container(group).update(ports=GCS)), "no Service at http://stable-diff"),
    (
        head(lambda group: group["rayStartParams"].update({"dashboard-host": "127.0.0.1"})),
        "cannot submit the Serve config",
    ),
    (lambda cluster: cluster["autoscalerOptions"].pop("securityContext"), "autoscaler: allowPriv"),
    (worker(lambda group: container(group).pop("readinessProbe")), "calls wget"),
    (
        head(lambda group: container(group)["resources"]["requests"].update(memory="64Gi")),
        "memory: asks for",
    ),
    (lambda cluster: cluster.update(rayVersion="2.51.0"), "token needs rayVersion"),
    (
        worker(lambda group: container(group)["readinessProbe"]["httpGet"].update(port="http")),
        "the pod has no port http",
    ),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mistake_in_the_cluster_is_caught(
    mistake: Callable[[dict[str, Any]], Any], words: str
) -> None:
    documents = render(OVERLAYS / "ray")
    (service,) = [one["spec"] for one in documents if one["kind"] == "RayService"]
    mistake(service["rayClusterConfig"])
    assert any(words in line for line in problems(documents)), problems(documents)


def drop(kind: str, name: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(documents: list[dict[str, Any]]) -> None:
        documents[:] = [
            one for one in documents if (one["kind"], one["metadata"]["name"]) != (kind, name)
        ]

    return change


def policy(documents: list[dict[str, Any]], name: str = "ray") -> dict[str, Any]:
    (found,) = [
        one["spec"]
        for one in documents
        if (one["kind"], one["metadata"]["name"]) == ("NetworkPolicy", name)
    ]
    spec: dict[str, Any] = found
    return spec


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (drop("TargetGroupConfiguration", "ui"), "Service ui has no TargetGroupConfiguration"),
        (drop("NodePool", "stable-diffusion-general"), "fits no node"),
        (drop("Service", "ui"), "there is no Service ui"),
        (drop("Gateway", "stable-diffusion"), "there is no Gateway"),
        (lambda d: policy(d)["ingress"].pop(1), "KubeRay's operator cannot come in at 8265"),
        (lambda d: policy(d)["ingress"].pop(2), "the load balancer cannot come in at 8000"),
        (lambda d: policy(d)["egress"].pop(1), "cannot reach names at 53"),
        (
            lambda d: policy(d, "ui")["egress"][0]["to"][0]["podSelector"].update(
                matchLabels={"ray.io/is-ray-node": "yes"}  # of the pods, not of their Service
            ),
            "cannot reach Service stable-diffusion-serve-svc at 8000",
        ),
        (
            lambda d: (
                policy(d)["egress"][2]["to"][0]["ipBlock"].pop("except")
                and policy(d)["egress"][2].pop("ports")
            ),
            "may reach the node's metadata",
        ),
    ],
)
def test_a_mistake_around_the_cluster_is_caught(
    mistake: Callable[[list[dict[str, Any]]], Any], words: str
) -> None:
    documents = render(OVERLAYS / "ray")
    mistake(documents)
    assert any(words in line for line in problems(documents)), problems(documents)


def test_no_route_leads_to_the_dashboard(objects: list[dict[str, Any]]) -> None:
    (route,) = [one["spec"] for one in objects if one["kind"] == "HTTPRoute"]
    backends = [one for rule in route["rules"] for one in rule.get("backendRefs", [])]
    assert {(one["name"], one["port"]) for one in backends} == {
        ("stable-diffusion-serve-svc", 8000),
        ("ui", 80),
    }
