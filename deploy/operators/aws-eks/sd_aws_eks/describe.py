"""`python -m sd_aws_eks.describe FILE`: what the install scripts need to know of a configuration.

Prints `name=value` lines; a wrong configuration is told as bentoctl would tell it, with status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from sd_aws_eks.nodes import pools
from sd_aws_eks.placement import placements
from sd_aws_eks.quotas import quotas
from sd_aws_eks.spec import EksSpec
from sd_aws_eks.versions import ending
from sd_bentoctl.document import Wrong, check


def describe(path: Path) -> dict[str, str]:
    """Facts by name.

    Raises:
        Wrong: the configuration is not right.
    """
    top, spec = check(yaml.safe_load(path.read_text()), EksSpec)
    if top.operator.name != "aws-eks":
        raise Wrong([f"operator.name: is {top.operator.name}; these scripts are for aws-eks"])
    return {
        "name": top.name,
        "region": spec.region,
        "accelerators": " ".join(spec.accelerators),
        "hosts": " ".join(spec.hosts),
        "services": " ".join(f"{place.namespace}={one.host}" for place, one in placements(spec)),
        "cluster_name": spec.cluster or top.name,
        "existing": "true" if spec.cluster else "false",
        "existing_vpc": spec.vpc_id or "",
        "existing_subnet": spec.private_subnet_ids[0] if spec.vpc_id else "",
        "existing_controllers": " ".join(spec.existing_controllers),
        "pools": " ".join(
            f"{place.namespace}-{kind}" for place, one in placements(spec) for kind in pools(one)
        ),
        "addons": " ".join(_addons(spec)),
        "models_bucket": spec.models_bucket or "",
        "needed_models": " ".join(_needed_models(spec)),
        # an existing cluster is reached as its owner does
        "private": "false" if spec.api_allowed_cidrs or spec.cluster else "true",
        "spot": "true"
        if any(one.capacity != "on-demand" for _, one in spec.placements)
        else "false",
        "quotas": ";".join(map(str, quotas(spec))),
        "instance_types": " ".join(spec.instance_names),
        "ending": "" if spec.cluster else ending(spec.kubernetes_version),
        "kubernetes_version": spec.kubernetes_version,
        "bottlerocket_version": spec.bottlerocket_version,
        "volume_gib": str(spec.volume_gib),
        "image_uri": spec.image_uri or "",
        "image_snapshot_id": spec.image_snapshot_id or "",
        "api_keys_parameter": spec.api_keys_parameter or "",
        "queue": "true" if spec.async_ else "false",
        "cloudfront_hostname": spec.cloudfront_hostname or "",
        "access_log": "true" if spec.async_ and spec.access_log else "false",
        "api_gateway_account": "true" if spec.api_gateway_account else "false",
        "scheme": "https" if spec.certificate_arn else "http",
    }


def _addons(spec: EksSpec) -> list[str]:
    """Return the add-ons that an existing cluster must have: pods' rights, and what fields need."""
    mounts = any(one.model_bucket for _, one in spec.placements)
    return [
        "eks-pod-identity-agent",
        *(["aws-mountpoint-s3-csi-driver"] if mounts else []),
        *(["amazon-cloudwatch-observability"] if spec.tracing else []),
    ]


def _needed_models(spec: EksSpec) -> list[str]:
    """Return the folders of the bucket made here that services load at their start."""
    own = [
        one.model
        for _, one in spec.placements
        if one.model and one.model_bucket == spec.models_bucket and not one.dynamic
    ]
    return sorted(set(own))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m sd_aws_eks.describe FILE", file=sys.stderr)
        return 2
    try:
        facts = describe(Path(arguments[0]))
    except (Wrong, OSError, yaml.YAMLError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"{name}={value}" for name, value in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
