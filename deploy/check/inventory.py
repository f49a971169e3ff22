"""The resources of an account by kind, read from its APIs and not from Terraform's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

#: service, operation, the key of its answer that lists the things
KINDS = (
    ("apigateway", "get_rest_apis", "items"),
    ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"),
    ("cloudwatch", "describe_alarms", "MetricAlarms"),
    ("dynamodb", "list_tables", "TableNames"),
    ("ec2", "describe_addresses", "Addresses"),
    ("ec2", "describe_internet_gateways", "InternetGateways"),
    ("ec2", "describe_launch_templates", "LaunchTemplates"),
    ("ec2", "describe_route_tables", "RouteTables"),
    ("ec2", "describe_security_groups", "SecurityGroups"),
    ("ec2", "describe_subnets", "Subnets"),
    ("ec2", "describe_vpcs", "Vpcs"),
    ("ecr", "describe_repositories", "repositories"),
    ("eks", "list_clusters", "clusters"),
    ("elbv2", "describe_load_balancers", "LoadBalancers"),
    ("elbv2", "describe_target_groups", "TargetGroups"),
    ("events", "list_rules", "Rules"),
    ("iam", "list_instance_profiles", "InstanceProfiles"),
    ("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList"),
    ("iam", "list_roles", "Roles"),
    ("lambda", "list_functions", "Functions"),
    ("logs", "describe_log_groups", "logGroups"),
    ("s3", "list_buckets", "Buckets"),
    ("secretsmanager", "list_secrets", "SecretList"),
    ("sns", "list_topics", "Topics"),
    ("sqs", "list_queues", "QueueUrls"),
)
_ENDED = {"terminated", "deleted"}


def inventory(client: Callable[[str], Any]) -> Counter[str]:
    """`{"ec2 Vpcs": 1, ...}`, without what has ended.

    Instances, gateways and endpoints that have ended are listed for a while by AWS too. Volumes of
    ended instances and AWS's own keys do not count, nor do network interfaces at all: EC2 deletes
    them with what they belong to, moto never does.
    """
    found: Counter[str] = Counter()
    for service, operation, key in KINDS:
        found[f"{service} {key}"] = len(getattr(client(service), operation)().get(key, []))
    ec2, kms = client("ec2"), client("kms")
    return found + _machines(ec2) + _gateways(ec2) + _keys(kms)


def _machines(ec2: Any) -> Counter[str]:
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    ended = {one["InstanceId"] for one in instances if one["State"]["Name"] in _ENDED}
    volumes = ec2.describe_volumes()["Volumes"]
    held = [v for v in volumes if not {a["InstanceId"] for a in v["Attachments"]} & ended]
    return Counter(
        {
            "ec2 Instances": len(instances) - len(ended),
            "ec2 Volumes": len(held),
        }
    )


def _gateways(ec2: Any) -> Counter[str]:
    gateways = ec2.describe_nat_gateways()["NatGateways"]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    return Counter(
        {
            "ec2 NatGateways": sum(one["State"] not in _ENDED for one in gateways),
            "ec2 VpcEndpoints": sum(one["State"] not in _ENDED for one in endpoints),
        }
    )


def _keys(kms: Any) -> Counter[str]:
    aliases = kms.list_aliases()["Aliases"]
    aws = {a.get("TargetKeyId") for a in aliases if a["AliasName"].startswith("alias/aws/")}
    keys = {one["KeyId"] for one in kms.list_keys()["Keys"]} - aws
    states = [kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] for key in keys]
    return Counter({"kms Keys": sum(state != "PendingDeletion" for state in states)})
