"""installer-policy.json allows every call of the scripts and every service that Terraform uses.

It allows nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

EKS = Path(__file__).resolve().parents[3] / "deploy" / "eks"
#: What the AWS CLI calls differently than IAM: service of the CLI -> prefix of actions.
PREFIXES = {
    "elbv2": "elasticloadbalancing",
    "resourcegroupstaggingapi": "tag",
    "service-quotas": "servicequotas",
}
#: CLI commands that are several calls, or calls of another name.
ACTIONS = {
    "apigateway get-account": {"apigateway:GET"},
    "eks update-kubeconfig": {"eks:DescribeCluster"},
    "ecr get-login-password": {"ecr:GetAuthorizationToken"},
    "s3api get-bucket-tagging": {"s3:GetBucketTagging"},
    "s3api head-bucket": {"s3:ListBucket"},
    "s3api list-object-versions": {"s3:ListBucketVersions"},
    "s3api list-objects-v2": {"s3:ListBucket"},
    "s3 rm": {"s3:ListBucket", "s3:DeleteObject"},
    "eks wait": {"eks:DescribeNodegroup"},
    "ec2 wait": {"ec2:DescribeInstances", "ec2:DescribeSnapshots"},
    "elbv2 wait": {"elasticloadbalancing:DescribeLoadBalancers"},
}
#: What the scripts tell a user to call, and words that only look like a call.
PRINTED = {
    "servicequotas:RequestServiceQuotaIncrease",
    "eks:CreateAddon",
    "eks:UpdateAddon",
    "sso:Login",
    "kubectl:Helm",
}
#: Of programs that the scripts run: bentoctl makes repositories, docker pushes; an instance that
#: is started with a role and tags needs the right to give them.
OTHERS = {
    *("ecr:CreateRepository", "ecr:DeleteRepository", "ecr:DescribeRepositories"),
    *("ecr:PutLifecyclePolicy", "ecr:BatchCheckLayerAvailability", "ecr:CompleteLayerUpload"),
    *("ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart", "ecr:BatchGetImage"),
    *("iam:PassRole", "iam:TagInstanceProfile", "ec2:CreateTags"),
}

#: Where the Terraform of an EKS deployment is, below deploy/.
MODULES = (
    "operators/aws-eks/sd_aws_eks/terraform",
    "operators/aws-eks/sd_aws_eks/asynchronous",
    "queue/terraform",
)
#: Beginning of a resource's type -> the service whose rights it needs, where that is another word.
SERVICES = {"cloudwatch_event": "events", "cloudwatch_log": "logs", "api_gateway": "apigateway"}
#: Resources of EC2 bear no name of a service.
OF_EC2 = {
    *("availability_zones", "default_security_group", "eip", "flow_log", "internet_gateway"),
    *("launch_template", "nat_gateway", "route", "route_table", "route_table_association"),
    *("subnet", "vpc", "vpc_endpoint"),
}
#: Data that the provider knows itself, or that the scripts' part allows (sts:GetCallerIdentity).
CALLS_NOTHING = {"iam_policy_document", "partition", "caller_identity"}


def service(kind: str) -> str:
    """Return the prefix of the actions that a resource type (without `aws_`) needs."""
    if kind in OF_EC2:
        return "ec2"
    other = (name for start, name in SERVICES.items() if kind.startswith(start))
    return next(other, kind.partition("_")[0])


def called() -> set[str]:
    """The IAM actions of every call of the AWS CLI."""
    found = set()
    for script in EKS.glob("*.sh"):
        text = "\n".join(
            line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")
        )
        for service, operation in re.findall(r"\baws ([a-z0-9-]+) ([a-z0-9-]+)", text):
            words = "".join(part.capitalize() for part in operation.split("-"))
            plain = {f"{PREFIXES.get(service, service)}:{words}"}
            found |= ACTIONS.get(f"{service} {operation}", plain)
    return found


def test_the_scripts_may_what_they_call_and_no_more() -> None:
    scripts, _ = json.loads((EKS / "installer-policy.json").read_text())["Statement"]
    wanted = called() - PRINTED | OTHERS
    assert set(scripts["Action"]) == wanted


def test_terraform_may_use_every_service_of_its_resources() -> None:
    _, terraform = json.loads((EKS / "installer-policy.json").read_text())["Statement"]
    types = set[str]()
    for folder in MODULES:
        for file in (EKS.parent / folder).glob("*.tf"):
            types |= set(
                re.findall(r'^(?:resource|data) "aws_(\w+)"', file.read_text(), re.MULTILINE)
            )
    assert types > {"eks_cluster", "xray_resource_policy"}, "the modules were not read"
    wanted = {f"{service(kind)}:*" for kind in types - CALLS_NOTHING}
    assert set(terraform["Action"]) == wanted
