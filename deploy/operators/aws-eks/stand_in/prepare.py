"""Makes on the stand-in what our configurations take for granted, and puts its ids in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROLE = "arn:aws:iam::123456789012:role/cluster"


def prepare(document: dict[str, Any], client: Callable[[str], Any]) -> dict[str, Any]:
    """See deploy.check.stand_in.Overrides."""
    spec = document["spec"]
    if "vpc_id" in spec:
        ec2 = client("ec2")
        spec["vpc_id"] = ec2.create_vpc(CidrBlock=spec["vpc_cidr"])["Vpc"]["VpcId"]
        spec["private_subnet_ids"] = [
            ec2.create_subnet(
                VpcId=spec["vpc_id"], CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=zone
            )["Subnet"]["SubnetId"]
            for number, zone in enumerate(("us-east-1a", "us-east-1b"))
        ]
    if "cluster" in spec:
        client("eks").create_cluster(
            name=spec["cluster"],
            roleArn=ROLE,
            resourcesVpcConfig={"subnetIds": spec["private_subnet_ids"]},
            accessConfig={"authenticationMode": "API"},
        )
    return document
