"""Controllers may do what their own projects say that they must, but for what is argued here.

The lists were read on 2026-11-28: iam_policy.json of the AWS load balancer controller (its own file
in an early version, a later one in a repository that uses it), KarpenterControllerPolicy in
Karpenter's getting-started template. Conditions are not compared: ours are narrower.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TERRAFORM = ROOT / "deploy/operators/aws-eks/sd_aws_eks/terraform"
ACTION = re.compile(r'"([a-z0-9-]+:[A-Z][A-Za-z0-9]*\*?)"')


def actions(service: str, names: str) -> set[str]:
    """`service:Name` of each name."""
    return {f"{service}:{name}" for name in names.split()}


PUBLISHED = {
    "balancer.tf": actions("iam", "CreateServiceLinkedRole ListServerCertificates")
    | actions("iam", "GetServerCertificate")
    | actions(
        "ec2",
        """DescribeAccountAttributes DescribeAddresses DescribeAvailabilityZones
        DescribeInternetGateways DescribeVpcs DescribeVpcPeeringConnections DescribeSubnets
        DescribeSecurityGroups DescribeInstances DescribeNetworkInterfaces DescribeTags
        GetCoipPoolUsage DescribeCoipPools GetSecurityGroupsForVpc DescribeIpamPools
        DescribeRouteTables AuthorizeSecurityGroupIngress RevokeSecurityGroupIngress
        CreateSecurityGroup CreateTags DeleteTags DeleteSecurityGroup""",
    )
    | actions(
        "elasticloadbalancing",
        """DescribeLoadBalancers DescribeLoadBalancerAttributes DescribeListeners
        DescribeListenerCertificates DescribeSSLPolicies DescribeRules DescribeTargetGroups
        DescribeTargetGroupAttributes DescribeTargetHealth DescribeTags DescribeTrustStores
        DescribeListenerAttributes DescribeCapacityReservation CreateLoadBalancer CreateTargetGroup
        CreateListener DeleteListener CreateRule DeleteRule AddTags RemoveTags
        ModifyLoadBalancerAttributes SetIpAddressType SetSecurityGroups SetSubnets
        DeleteLoadBalancer ModifyTargetGroup ModifyTargetGroupAttributes DeleteTargetGroup
        ModifyListenerAttributes ModifyCapacityReservation ModifyIpPools RegisterTargets
        DeregisterTargets SetWebAcl ModifyListener AddListenerCertificates
        RemoveListenerCertificates ModifyRule SetRulePriorities""",
    )
    | {"cognito-idp:DescribeUserPoolClient"}
    | actions("acm", "ListCertificates DescribeCertificate")
    | actions("waf-regional", "GetWebACL GetWebACLForResource AssociateWebACL DisassociateWebACL")
    | actions("wafv2", "GetWebACL GetWebACLForResource AssociateWebACL DisassociateWebACL")
    | actions(
        "shield", "GetSubscriptionState DescribeProtection CreateProtection DeleteProtection"
    ),
    "karpenter.tf": actions(
        "ec2",
        """RunInstances CreateFleet CreateLaunchTemplate CreateTags TerminateInstances
        DeleteLaunchTemplate DescribeImages DescribeInstances DescribeInstanceTypeOfferings
        DescribeInstanceTypes DescribeLaunchTemplates DescribeSecurityGroups
        DescribeSpotPriceHistory DescribeSubnets""",
    )
    | actions(
        "iam",
        """PassRole CreateInstanceProfile TagInstanceProfile AddRoleToInstanceProfile
        RemoveRoleFromInstanceProfile DeleteInstanceProfile GetInstanceProfile""",
    )
    | actions("sqs", "DeleteMessage GetQueueUrl ReceiveMessage")
    | {"ssm:GetParameter", "pricing:GetProducts", "eks:DescribeCluster"},
}
#: What our manifests never have the controller do.
LEFT_OUT = {
    "balancer.tf": {
        # certificates are ACM's
        *actions("iam", "ListServerCertificates GetServerCertificate"),
        # addresses of Outposts and of IPAM
        *actions("ec2", "GetCoipPoolUsage DescribeCoipPools DescribeIpamPools"),
        *actions("elasticloadbalancing", "ModifyIpPools ModifyCapacityReservation"),
        # WAF Classic, and Shield Advanced: a subscription is asked about, no protection is made
        *actions("waf-regional", "GetWebACL AssociateWebACL DisassociateWebACL"),
        *actions("shield", "DescribeProtection CreateProtection DeleteProtection"),
    },
    "karpenter.tf": set(),
}


def allowed(action: str, ours: set[str]) -> bool:
    """Whether a list of ours has it; IAM takes no account of case, and `*` ends some of ours."""
    return any(re.fullmatch(one.replace("*", ".*"), action, re.IGNORECASE) for one in ours)


@pytest.mark.parametrize("file", PUBLISHED)
def test_what_a_controller_must_do_it_may(file: str) -> None:
    ours = set(ACTION.findall((TERRAFORM / file).read_text()))
    missing = {action for action in PUBLISHED[file] if not allowed(action, ours)}
    assert missing == LEFT_OUT[file]


def test_keda_may_count_the_tasks() -> None:
    text = (ROOT / "deploy/queue/terraform/identities.tf").read_text()
    found = re.search(r'"aws_iam_policy_document" "keda" \{\n(.*?)\n\}\n', text, re.DOTALL)
    assert found and set(ACTION.findall(found[1])) == {"sqs:GetQueueAttributes"}
