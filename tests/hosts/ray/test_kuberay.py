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
    "ray": ("neuron_cores", {"inf2-xlarge": 2}),
    "ray-inf2-large": ("neuron_cores", {"inf2-24xlarge": 12, "inf2-48xlarge": 24}),
    "ray-gpu": ("GPU", {"gpu": 1}),
}
#: the node pools that an overlay leaves to be applied beside it
BESIDE = {"ray": "neuron", "ray-gpu": "nvidia"}


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


def pools(overlay: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if overlay in BESIDE:
        text = (COMPONENTS / BESIDE[overlay] / "nodes.yaml").read_text()
        objects = list(yaml.safe_load_all(text))
    return [one["spec"] for one in objects if one["kind"] == "NodePool"]


def test_objects_are_valid(objects: list[dict[str, Any]]) -> None:
    assert problems(objects) == []


def test_pod_templates_are_pods(service: dict[str, Any]) -> None:
    for number, group in enumerate(templates(service)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}}
        assert problems([{**pod, "spec": group["template"]["spec"]}]) == []


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


def test_workers_fit_the_node_pools(
    overlay: str, objects: list[dict[str, Any]], service: dict[str, Any]
) -> None:
    (pool,) = pools(overlay, objects)
    types = pool["template"]["spec"]["requirements"][0]["values"]
    ((device, limit),) = pool["limits"].items()
    _, *workers = templates(service)
    devices = 0
    for worker in workers:
        pod = worker["template"]["spec"]
        wanted = dict(pod["nodeSelector"])
        assert wanted.pop("node.kubernetes.io/instance-type", types[0]) in types
        assert wanted.items() <= pool["template"]["metadata"]["labels"].items()
        assert {one["key"] for one in pod["tolerations"]} == {
            one["key"] for one in pool["template"]["spec"]["taints"]
        }
        devices += worker["maxReplicas"] * int(pod["containers"][0]["resources"]["limits"][device])
    assert devices <= int(limit)


def small_offer(group: dict[str, Any]) -> None:
    group["rayStartParams"]["resources"] = '"{\\"neuron_cores\\": 1}"'


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (small_offer, "neuron_cores 1, but the pod has 2"),
        (small_offer, "replica asks for"),
        (lambda group: group["template"]["spec"].update(tolerations=[]), "tolerations:"),
        (lambda group: group["rayStartParams"].update({"num-gpus": "1"}), "GPU 1, but"),
    ],
)
def test_a_mistake_in_a_group_is_caught(
    mistake: Callable[[dict[str, Any]], None], words: str
) -> None:
    documents = render(OVERLAYS / "ray")
    (service,) = [one["spec"] for one in documents if one["kind"] == "RayService"]
    mistake(templates(service)[1])
    assert any(words in line for line in problems(documents)), problems(documents)


def test_no_route_leads_to_the_dashboard(objects: list[dict[str, Any]]) -> None:
    (route,) = [one["spec"] for one in objects if one["kind"] == "HTTPRoute"]
    ports = {backend["port"] for rule in route["rules"] for backend in rule["backendRefs"]}
    assert ports == {8000, 80}
