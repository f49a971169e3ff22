"""From a checked spec to Terraform's files and values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from sd_aws_ec2.spec import Ec2Spec
from sd_bentoctl import generate as files

TERRAFORM = Path(__file__).parent / "terraform"
RAY = Path(__file__).resolve().parents[3] / "ray" / "serve.yaml"
#: The current Deep Learning AMI with driver and container toolkit, by public SSM parameter.
AMI_PARAMETERS = {
    "nvidia": "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04"
    "/latest/ami-id",
    "neuron": "/aws/service/neuron/dlami/base/ubuntu-24.04/latest/image_id",
}
DEVICES = {"nvidia": "cuda", "neuron": "neuron"}
#: What Ray gives one replica: one GPU, or the two cores of an Inferentia2 chip.
_OF_A_REPLICA: dict[str, dict[str, Any]] = {
    "nvidia": {"num_gpus": 1},
    "neuron": {"resources": {"neuron_cores": 2}},
}
#: A connection of the balancer must not outlive Serve's side of it.
_KEEP_ALIVE_S = 60
#: Fields that the Python side uses up, or passes on under another name.
_CONSUMED = {"precision", "instance_type", "volume_gib", "enable_gpus"}


def generate(
    name: str, spec: dict[str, Any], template_type: str, destination_dir: str, values_only: bool
) -> list[str]:
    """Part of bentoctl's contract with operators: write the files, return their paths."""
    return files.write(
        TERRAFORM, Path(destination_dir), values(name, spec), values_only=values_only
    )


def values(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Terraform's variables. `given` is a spec with bentoctl's own `env` and `image_tag` beside."""
    fields = {key: value for key, value in given.items() if key in Ec2Spec.model_fields}
    spec = Ec2Spec.model_validate(fields)
    instance, variables = spec.instance, environment(spec, given.get("env") or {})
    return {
        "deployment_name": name,
        **spec.model_dump(mode="json", exclude=_CONSUMED),
        "instance_type": instance.name,
        "accelerator": instance.accelerator,
        "accelerator_devices": instance.devices,
        "volume_gib": spec.volume_gib,
        "image_uri": given.get("image_tag") or spec.image_uri,
        "ami_ssm_parameter": AMI_PARAMETERS[instance.accelerator],
        "environment": variables,
        "idle_timeout_s": idle_timeout_s(variables),
        "serve_config": json.dumps(serve_config(spec, variables)) if spec.host == "ray" else None,
    }


def serve_config(spec: Ec2Spec, variables: dict[str, str]) -> dict[str, Any]:
    """Ray Serve's config of the tree, with a replica for each of the instance's accelerators."""
    config: dict[str, Any] = yaml.safe_load(RAY.read_text())
    keep_alive_s = idle_timeout_s(variables) + _KEEP_ALIVE_S
    config["http_options"] = {"keep_alive_timeout_s": keep_alive_s}  # the rest: hosts.ray's options
    (application,) = config["applications"]
    del application["runtime_env"]  # the container's own variables are the replicas', too
    (replica,) = (one for one in application["deployments"] if one["name"] == "replica")
    del replica["autoscaling_config"]
    replica |= {
        "num_replicas": spec.instance.devices,
        "max_ongoing_requests": 2 * spec.requests_per_replica,
        "ray_actor_options": {"num_cpus": 1, **_OF_A_REPLICA[spec.instance.accelerator]},
    }
    return config


def environment(spec: Ec2Spec, env: dict[str, str]) -> dict[str, str]:
    """The container's variables: what the spec implies, then the user's own, which win."""
    device = DEVICES[spec.instance.accelerator]
    implied = {"SD_DEVICE": device, "SD_PRECISION": spec.precision}
    if spec.model:
        implied["SD_MODEL"] = "/models/current" if spec.model.startswith("s3://") else spec.model
    # the service stops accepting a little before the container is ended
    implied["SD_DRAIN_S"] = str(spec.drain_s - 5)
    return {**implied, **env}


def idle_timeout_s(variables: dict[str, str]) -> int:
    """Return how long the balancer waits for an answer: longer than the service, at most 4000 s."""
    return min(4000, math.ceil(float(variables.get("SD_REQUEST_TIMEOUT_S", 300))) + 10)
