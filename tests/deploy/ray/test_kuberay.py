"""The KubeRay overlay: what Ray, Kubernetes and the deployments' names say about it."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deploy.check.manifests import OVERLAYS, problems, render
from deploy.ray.__main__ import CONFIG
from deploy.ray.app import build

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return render(OVERLAYS / "ray")


@pytest.fixture(scope="module")
def service(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one["spec"] for one in objects if one["kind"] == "RayService"]
    return found


def templates(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


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
        assert {deployment.name for deployment in app.deployments} == {"front", "drawer"}
        given = config["applications"][0]["deployments"]
        for kept, written in zip(app.deployments, given, strict=True):
            dumped = kept.model_dump()
            assert set(written) <= set(dumped), "Ray drops what it does not know"
            for option, value in written.items():
                if not isinstance(value, dict):
                    assert dumped[option] == value


def test_only_workers_offer_what_drawers_need(service: dict[str, Any]) -> None:
    head, *workers = templates(service)
    assert head["rayStartParams"]["num-cpus"] == "0"
    drawer = configs(service)[0]["applications"][0]["deployments"][1]
    wanted = drawer["ray_actor_options"]["resources"]
    for worker in workers:
        offered = json.loads(shlex.split(worker["rayStartParams"]["resources"])[0])
        limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert offered["neuron_cores"] == 2 * int(limits["aws.amazon.com/neuron"])
        assert offered["neuron_cores"] >= wanted["neuron_cores"]


def test_no_route_leads_to_the_dashboard(objects: list[dict[str, Any]]) -> None:
    (route,) = [one["spec"] for one in objects if one["kind"] == "HTTPRoute"]
    ports = {backend["port"] for rule in route["rules"] for backend in rule["backendRefs"]}
    assert ports == {8000, 80}
