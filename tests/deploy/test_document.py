"""Wrong configurations are refused before Terraform runs, naming the field and the fix."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema

from sd_aws_ec2.spec import Ec2Spec
from sd_aws_ec2.values import values
from sd_bentoctl.document import Wrong, check, service_settings

RIGHT: dict[str, Any] = {
    "api_version": "v1",
    "name": "drawing",
    "operator": {"name": "aws-ec2"},
    "template": "terraform",
    "spec": {"region": "us-east-1", "instance_type": "g5.xlarge"},
}
EUROPEAN = "arn:aws:acm:eu-west-1:123456789012:certificate/0a1b2c3d"


def with_spec(**spec: Any) -> dict[str, Any]:
    return {**RIGHT, "spec": {**RIGHT["spec"], **spec}}


def test_the_right_one_passes() -> None:
    top, spec = check(RIGHT, Ec2Spec)
    assert (top.name, spec.instance_type, spec.precision) == ("drawing", "g5.xlarge", "auto")


#: the configuration of BentoML's own post of 2022, as it stands there
POST: dict[str, Any] = {
    **RIGHT,
    "name": "stable-diffusion-demo",
    "spec": {
        "region": "us-west-1",
        "instance_type": "g4dn.2xlarge",
        "ami_id": "ami-0a85a3a3fb34b3c7f",
        "enable_gpus": True,
    },
}


def test_the_configuration_of_the_post_passes() -> None:
    _, spec = check(POST, Ec2Spec)
    assert spec.instance_type == "g4dn.2xlarge"
    assert "enable_gpus" not in values("demo", POST["spec"])


def test_the_balancer_waits_longer_than_the_service() -> None:
    spec = RIGHT["spec"]
    assert values("a", spec)["idle_timeout_s"] == 310
    longer = {**spec, "env": {"SD_REQUEST_TIMEOUT_S": "900"}}
    assert values("a", longer)["idle_timeout_s"] == 910


@pytest.mark.parametrize(
    ("size", "replicas", "each"),
    [
        ("g5.12xlarge", 4, {"num_cpus": 1, "num_gpus": 1}),
        ("g6.12xlarge", 4, {"num_cpus": 1, "num_gpus": 1}),
        ("inf2.24xlarge", 6, {"num_cpus": 1, "resources": {"neuron_cores": 2}}),
    ],
)
def test_several_accelerators_get_a_replica_each(
    size: str, replicas: int, each: dict[str, Any]
) -> None:
    spec = {**RIGHT["spec"], "instance_type": size}
    config = json.loads(values("a", spec)["serve_config"])
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    (one,) = (one for one in application["deployments"] if one["name"] == "replica")
    assert (one["num_replicas"], one["ray_actor_options"]) == (replicas, each)
    assert config["http_options"]["keep_alive_timeout_s"] == 370
    assert "runtime_env" not in application, "it would go before the container's variables"


def test_one_accelerator_is_bentoml() -> None:
    assert values("a", RIGHT["spec"])["serve_config"] is None


#: (kind, configuration, words of the message: first the field, then the fix)
WRONG: list[tuple[str, Any, tuple[str, ...]]] = [
    ("empty file", None, ("not a mapping",)),
    (
        "missing key",
        {**RIGHT, "spec": {"region": "us-east-1"}},
        ("spec.instance_type", "g5.xlarge"),
    ),
    (
        "unknown field",
        with_spec(instance_typ="g5.xlarge"),
        ("spec.instance_typ:", "instance_type?"),
    ),
    ("unknown top-level key", {**RIGHT, "evn": {"A": "b"}}, ("evn:", "did you mean env?")),
    ("unknown instance", with_spec(instance_type="g5.xlrage"), ("instance_type:", "g5.xlarge?")),
    ("cpu instance", with_spec(instance_type="m5.large"), ("instance_type:", "one of g4dn.xlarge")),
    ("region", with_spec(region="us-eats-1"), ("spec.region:", "did you mean us-east-1?")),
    (
        "inf2 elsewhere",
        with_spec(region="af-south-1", instance_type="inf2.xlarge"),
        ("spec.region:", "us-east-1"),
    ),
    (
        "certificate of another region",
        with_spec(certificate_arn=EUROPEAN),
        ("spec.certificate_arn:", "eu-west-1", "same region"),
    ),
    (
        "image of another region",
        with_spec(image_uri="123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1"),
        ("spec.image_uri:", "push it there"),
    ),
    ("image without tag", with_spec(image_uri="docker.io/me/sd"), ("spec.image_uri:", "tag")),
    ("AMI", with_spec(ami_id="al2023"), ("spec.ami_id:", "ami-0123")),
    ("counts", with_spec(min_instances=3, max_instances=2), ("spec.max_instances:", "raise it")),
    ("a base of no spot", with_spec(on_demand_base=1), ("spec.on_demand_base:", "spot: true")),
    (
        "another kind",
        with_spec(spot=True, other_instance_types=["inf2.xlarge"]),
        ("spec.other_instance_types:", "other accelerators"),
    ),
    ("a long spot drain", with_spec(spot=True, drain_s=300), ("spec.drain_s:", "100")),
    ("none that wakes", with_spec(min_instances=0), ("spec.min_instances:", "start the first")),
    ("GPU off", with_spec(enable_gpus=False), ("spec.enable_gpus:", "leave the field out")),
    (
        "GPU of an Inferentia",
        with_spec(instance_type="inf2.xlarge", enable_gpus=True),
        ("spec.enable_gpus:", "no GPU"),
    ),
    (
        "one file in S3",
        with_spec(model="s3://bucket/model.safetensors"),
        ("spec.model:", "name its folder"),
    ),
    ("volume", with_spec(volume_gib=20), ("spec.volume_gib:", "100")),
    ("type", with_spec(max_instances="many"), ("spec.max_instances:", "integer", "at most")),
    ("precision", with_spec(precision="int8"), ("spec.precision:", "'fp16'")),
    (
        "T4 has no bf16",
        with_spec(instance_type="g4dn.xlarge", precision="bf16"),
        ("spec.precision:", "use fp16"),
    ),
    ("network", with_spec(allowed_cidrs=["10.0.0.1/8"]), ("allowed_cidrs.0:", "203.0.113.0/24")),
    (
        "world without TLS",
        with_spec(allowed_cidrs=["0.0.0.0/0"]),
        ("spec.certificate_arn:", "narrow allowed_cidrs"),
    ),
    (
        "one subnet",
        with_spec(vpc_id="vpc-01234567", balancer_subnet_ids=["subnet-01234567"]),
        ("spec.balancer_subnet_ids:", "two subnets"),
    ),
    (
        "subnets without VPC",
        with_spec(instance_subnet_ids=["subnet-01234567"]),
        ("spec.vpc_id:", "name the VPC"),
    ),
    ("name", {**RIGHT, "name": "My_Service"}, ("name:", "a-z, 0-9, -")),
    ("version", {**RIGHT, "api_version": "v2"}, ("api_version:", "v1")),
    ("template", {**RIGHT, "template": "cloudformation"}, ("template:", "terraform")),
    ("misspelt setting", {**RIGHT, "env": {"SD_MODLE": "x"}}, ("env.SD_MODLE:", "SD_MODEL?")),
    ("clear secret", {**RIGHT, "env": {"SD_API_KEYS": "s"}}, ("env.SD_API_KEYS:", "SecureString")),
    ("number in env", {**RIGHT, "env": {"SD_THREADS": 4}}, ("env.SD_THREADS:", "string")),
]


@pytest.mark.parametrize(("kind", "document", "words"), WRONG, ids=[one[0] for one in WRONG])
def test_a_wrong_one_is_told_field_and_fix(
    kind: str, document: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(Wrong) as refused:
        check(document, Ec2Spec)
    assert len(refused.value.problems) == 1
    for word in words:
        assert word in refused.value.problems[0]


def test_all_mistakes_are_told_at_once() -> None:
    document = {**with_spec(region="mars-1", volume_gib=1), "name": "X", "env": {"SD_X": "1"}}
    with pytest.raises(Wrong) as refused:
        check(document, Ec2Spec)
    told = " ".join(refused.value.problems)
    assert all(field in told for field in ("name:", "spec.region:", "spec.volume_gib:"))


def test_settings_are_those_of_the_service() -> None:
    from runnables.settings import Settings

    assert service_settings() == {f"SD_{name.upper()}" for name in Settings.model_fields}
