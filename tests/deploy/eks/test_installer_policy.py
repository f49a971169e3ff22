"""installer-policy.json allows every call of the scripts, and of the scripts' part nothing else."""

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
    "eks update-kubeconfig": {"eks:DescribeCluster"},
    "ecr get-login-password": {"ecr:GetAuthorizationToken"},
    "s3 rm": {"s3:ListBucket", "s3:DeleteObject"},
    "ec2 wait": {"ec2:DescribeInstances", "ec2:DescribeSnapshots"},
    "elbv2 wait": {"elasticloadbalancing:DescribeLoadBalancers"},
}
#: What the scripts tell a user to call, and words that only look like a call.
PRINTED = {
    "servicequotas:RequestServiceQuotaIncrease",
    "eks:CreateAddon",
    "sso:Login",
    "kubectl:Helm",
}
#: Of programs that the scripts run: bentoctl makes repositories, docker pushes; an instance that
#: is started with a role and tags needs the right to give them.
OTHERS = {
    *("ecr:CreateRepository", "ecr:DeleteRepository", "ecr:DescribeRepositories"),
    *("ecr:PutLifecyclePolicy", "ecr:BatchCheckLayerAvailability", "ecr:CompleteLayerUpload"),
    *("ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"),
    *("iam:PassRole", "iam:TagInstanceProfile", "ec2:CreateTags"),
}


def called() -> set[str]:
    """The IAM actions of every call of the AWS CLI."""
    found = set()
    for script in EKS.glob("*.sh"):
        text = "\n".join(
            line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")
        )
        for service, operation in re.findall(r"\baws ([a-z0-9-]+) ([a-z-]+)", text):
            words = "".join(part.capitalize() for part in operation.split("-"))
            plain = {f"{PREFIXES.get(service, service)}:{words}"}
            found |= ACTIONS.get(f"{service} {operation}", plain)
    return found


def test_the_scripts_may_what_they_call_and_no_more() -> None:
    scripts, _ = json.loads((EKS / "installer-policy.json").read_text())["Statement"]
    wanted = called() - PRINTED | OTHERS
    assert set(scripts["Action"]) == wanted
