"""Wrong configurations are refused before Terraform runs, naming the field and the fix."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sd_aws_eks import versions
from sd_aws_eks.spec import EksSpec
from sd_bentoctl.document import Wrong, check

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
READY = sorted((DEPLOY / "eks").glob("*.yaml"))
RIGHT: dict[str, Any] = {
    "api_version": "v1",
    "name": "images",
    "operator": {"name": "aws-eks"},
    "template": "terraform",
    "spec": {"region": "us-east-1", "instance_types": ["g5.xlarge"]},
}
SHARED: dict[str, Any] = {
    "cluster": "shared",
    "vpc_id": "vpc-0123456789abcdef0",
    "private_subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "internal": True,
}
NAME = "tasks.example.com"
ELSEWHERE = "arn:aws:acm:eu-west-1:123456789012:certificate/0a1b2c3d"

#: (the spec's fields, words of the message: first the field, then the fix)
WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"instance_types": []}, ("spec.instance_types:", "g5.xlarge")),
    ({"instance_types": ["g5.xlrage"]}, ("instance_types.0:", "did you mean g5.xlarge?")),
    ({"instance_types": ["m5.large"]}, ("instance_types.0:", "use of g4dn.xlarge")),
    ({"instance_types": ["g5.xlarge", "inf2.xlarge"]}, ("instance_types:", "second of `services`")),
    ({"region": "af-south-1", "instance_types": ["inf2.xlarge"]}, ("region:", "us-east-1")),
    ({"instance_types": ["g4dn.xlarge"], "precision": "bf16"}, ("precision:", "use fp16")),
    ({"kubernetes_version": "1.29"}, ("kubernetes_version:", "1.36")),
    ({"host": "ray", "async": True}, ("host:", "leave it out")),
    ({"vpc_id": "vpc-0123456789abcdef0"}, ("private_subnet_ids:", "two or more")),
    ({"private_subnet_ids": ["subnet-0123456789abcdef0"]}, ("private_subnet_ids:", "vpc_id")),
    ({"cluster": "shared"}, ("vpc_id:", "required with cluster")),
    ({"existing_controllers": ["keda"]}, ("existing_controllers:", "name it in cluster")),
    ({**SHARED, "admin_role_arns": ["arn:aws:iam::123456789012:role/a"]}, ("admin_role_arns:",)),
    ({**SHARED, "existing_controllers": ["karpenter"]}, ("node_role:", "that its nodes have")),
    ({**SHARED, "node_role": "nodes"}, ("node_role:", "karpenter in existing_controllers")),
    ({**SHARED, "existing_controllers": ["kedda"]}, ("existing_controllers.0:", "'keda'")),
    (
        {**SHARED, "internal": False, "async": True, "existing_controllers": ["keda"]},
        ("existing_controllers:", "without keda"),
    ),
    ({"services": [{"name": "a"}, {"name": "a"}]}, ("services:", "unique")),
    (
        {"services": [{"name": "a", "hostname": "a.example.com"}], "async": True},
        ("services:", "leave hostname out"),
    ),
    (
        {"services": [{"name": "a"}, {"name": "dynamic"}], "async": True},
        ("services:", "dynamic: model:", "folder per model"),
    ),
    ({"services": [{"name": "a", "queue_length": 0}], "async": True}, ("a: queue_length:",)),
    ({"async": True, "runtime": "dynamic"}, ("model:", "s3://bucket/folder")),
    ({"services": [{"name": "a", "max_replicas": 0}]}, ("services:", "a: max_replicas:")),
    ({"services": [{"name": "a", "precison": "fp16"}]}, ("services.0.precison:",)),
    (
        {
            "dashboard_users": {
                "user_pool_arn": "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_a",
                "client_id": "1a",
                "domain": "me",
            }
        },
        ("dashboard_users:", "host: ray"),
    ),
    ({"tracing": True, "container_insights": False}, ("tracing:", "container_insights: true")),
    ({"monthly_budget_usd": 100}, ("alarm_email:", "name one")),
    ({"tags": {"aws:team": "x"}}, ("tags.", "aws:")),
    ({"pods_per_gpu": 5}, ("spec.pods_per_gpu:", "4")),
    ({"pods_per_gpu": 2, "host": "ray"}, ("pods_per_gpu:", "not for host: ray")),
    (
        {"pods_per_gpu": 2, "bottlerocket_version": "1.20.0"},
        ("bottlerocket_version:", "1.29 or newer"),
    ),
    ({"capacity": "spott"}, ("spec.capacity:", "'spot-first'")),
    ({"min_replicas": 5, "max_replicas": 2}, ("max_replicas:", "raise it")),
    ({"min_replicas": 0}, ("min_replicas:", "async: true")),
    ({"drain_s": 110}, ("drain_s:", "85")),
    ({"vpc_cidr": "10.0.0.0/24"}, ("vpc_cidr:", "10.42.0.0/16")),
    ({"api_allowed_cidrs": ["0.0.0.0/0"]}, ("api_allowed_cidrs:", "name your networks")),
    ({"allowed_cidrs": ["0.0.0.0/0"]}, ("certificate_arn:", "narrow allowed_cidrs")),
    ({"allowed_cidrs": ["2001:db8::/32"]}, ("allowed_cidrs:", "IPv4")),
    ({"certificate_arn": ELSEWHERE}, ("certificate_arn:", "eu-west-1", "same region")),
    ({"model": "s3://b"}, ("spec.model:", "s3://bucket/folder")),
    ({"image_snapshot_id": "latest"}, ("image_snapshot_id:", "snap-0123")),
    ({"bottlerocket_version": "new"}, ("bottlerocket_version:", "or latest")),
    ({"admin_role_arns": ["me"]}, ("admin_role_arns.0:", "arn:aws:iam::")),
    (
        {"image_uri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1"},
        ("image_uri:", "push it there"),
    ),
    ({"async": True, "allowed_cidrs": ["10.0.0.0/8"]}, ("allowed_cidrs:", "leave it out")),
    ({"clients": {"me": "standard"}}, ("clients:", "async: true")),
    ({"async": True, "api_gateway_account": True}, ("api_gateway_account:", "access_log: true")),
    ({"async": True, "clients": {"me": "gold"}}, ("clients.me:", "'standard'")),
    ({"cloudfront": True}, ("cloudfront:", "async: true")),
    ({"cloudfront_hostname": NAME}, ("cloudfront_hostname:", "cloudfront: true")),
    ({"async": True, "cloudfront": True}, ("cloudfront_hostname:", "TLS 1.0")),
    (
        {"async": True, "cloudfront": True, "cloudfront_hostname": NAME},
        ("cloudfront_certificate_arn:", "give both"),
    ),
    (
        {
            "async": True,
            "cloudfront": True,
            "cloudfront_hostname": NAME,
            "cloudfront_certificate_arn": ELSEWHERE,
        },
        ("cloudfront_certificate_arn:", "eu-west-1", "us-east-1"),
    ),
    ({"models_bucket": "a-b", "state_bucket": "a-b"}, ("models_bucket:", "name two")),
    ({"models_bucket": "My_Models"}, ("models_bucket:", "my-terraform-state")),
    ({"async": True, "runtime": "legacy"}, ("runtime:", "sdxl")),
    ({"instance_type": "g5.xlarge"}, ("instance_type:", "did you mean instance_types?")),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=["-".join(one[0]) for one in WRONG])
def test_a_wrong_one_is_told_field_and_fix(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(Wrong) as refused:
        check({**RIGHT, "spec": {**RIGHT["spec"], **fields}}, EksSpec)
    assert len(refused.value.problems) == 1
    for word in words:
        assert word in refused.value.problems[0]


def test_there_are_ready_ones() -> None:
    assert {path.stem for path in READY} >= {"gpu", "gpu-production", "inf2"}


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_ones_are_right(path: Path) -> None:
    top, spec = check(yaml.safe_load(path.read_text()), EksSpec)
    assert top.operator.name == "aws-eks"
    kinds = {"several": ("neuron", "nvidia")}
    expected = kinds.get(path.stem, ("neuron",) if "inf2" in path.stem else ("nvidia",))
    assert spec.accelerators == expected


def test_a_model_in_s3_is_bucket_and_folder() -> None:
    spec = EksSpec(region="us-east-1", instance_types=("g5.xlarge",), model="s3://b.c-d/x/sdxl")
    assert (spec.model_bucket, spec.model_prefix) == ("b.c-d", "x/sdxl/")
    assert EksSpec(region="us-east-1", instance_types=("g5.xlarge",)).model_bucket is None


@pytest.mark.parametrize(
    ("version", "day", "words"),
    [
        ("1.33", datetime.date(2026, 11, 28), ("2026-07-29", "1.35 or 1.36")),
        ("1.34", datetime.date(2026, 11, 28), ("2026-12-02",)),
        ("1.35", datetime.date(2027, 2, 1), ("2027-03-27", "use 1.36")),
        ("1.36", datetime.date(2028, 1, 1), ("raising this table",)),
    ],
)
def test_a_version_near_its_end_is_refused(
    version: str, day: datetime.date, words: tuple[str, ...]
) -> None:
    told = versions.ending(version, day)
    assert all(word in told for word in words), told


def test_a_version_with_months_left_is_taken() -> None:
    assert versions.ending("1.35", datetime.date(2026, 11, 28)) == ""


def test_a_service_takes_what_it_leaves_out_from_the_deployment() -> None:
    document = yaml.safe_load((DEPLOY / "eks" / "several.yaml").read_text())
    _, spec = check(document, EksSpec)
    alone = {one.name: its for one, its in spec.placements if one}
    assert alone["sd"].volume_gib == alone["sdxl"].volume_gib == 120
    assert (alone["sd"].max_replicas, alone["sdxl"].max_replicas) == (4, 8)
    assert (alone["sd"].host, alone["neuron"].host) == ("bentoml", "ray")
    assert spec.instance_names == ("g4dn.xlarge", "g5.xlarge", "g6.xlarge", "inf2.xlarge")
