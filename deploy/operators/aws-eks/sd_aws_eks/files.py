"""From a checked spec to files: Terraform's, and a kustomization beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sd_aws_eks import manifests, versions
from sd_aws_eks.placement import placements
from sd_aws_eks.spec import EksSpec
from sd_bentoctl import generate as files

TERRAFORM = Path(__file__).parent / "terraform"
ASYNCHRONOUS = Path(__file__).parent / "asynchronous"
QUEUE = Path(__file__).resolve().parents[3] / "queue" / "terraform"
#: Fields that Terraform takes as they are.
_PASSED = {
    "region",
    "kubernetes_version",
    "vpc_cidr",
    "nat_per_zone",
    "api_allowed_cidrs",
    "admin_role_arns",
    "system_instance_type",
    "kms_key_arn",
    "model_kms_key_arn",
    "models_bucket",
    "log_retention_days",
    "api_keys_parameter",
    "vpc_id",
    "cluster",
    "existing_controllers",
    "private_subnet_ids",
    "tags",
    "tracing",
    "container_insights",
    "alarm_email",
    "monthly_budget_usd",
}
#: The same, of a queue.
_OF_QUEUE = {
    "clients",
    "input_buckets",
    "results_days",
    "rate_limit",
    "burst_limit",
    "max_wait_s",
    "access_log",
    "api_gateway_account",
    "web_acl_arn",
}


def generate(
    name: str, spec: dict[str, Any], template_type: str, destination_dir: str, values_only: bool
) -> list[str]:
    """Part of bentoctl's contract with operators: write the files, return their paths.

    The kustomization holds values (image, replicas...): `values_only` writes it, too.
    """
    checked, folder = checked_spec(spec), Path(destination_dir)
    if not checked.cluster and (reason := versions.ending(checked.kubernetes_version)):
        raise ValueError(f"spec.kubernetes_version: {reason}")
    written = files.write(
        TERRAFORM, folder, values(name, checked, spec.get("image_tag")), values_only=values_only
    )
    if checked.async_:
        written += _queue(folder)
    else:  # what was a queue's is destroyed by the next apply
        for path in ASYNCHRONOUS.glob("*.tf"):
            (folder / path.name).unlink(missing_ok=True)
        shutil.rmtree(folder / "queue", ignore_errors=True)
    if checked.state_bucket:
        written.append(_backend(folder, name, checked))
    image = spec.get("image_tag") or checked.image_uri
    return written + manifests.write(folder / "kubernetes", name, checked, image, spec.get("env"))


def checked_spec(given: dict[str, Any]) -> EksSpec:
    """The spec; `given` has bentoctl's own `env` and `image_tag` beside its fields."""
    return EksSpec.model_validate({k: v for k, v in given.items() if k in EksSpec.model_fields})


def values(name: str, spec: EksSpec, image: str | None = None) -> dict[str, Any]:
    """Terraform's variables."""
    alone = [one for _, one in spec.placements]
    models = {(one.model_bucket, one.model_prefix) for one in alone if one.model_bucket}
    queue = {
        "runtimes": {
            one.runtime: one.checkpoint or one.runtime for one in alone if not one.dynamic
        },
        "dynamic": any(one.dynamic for one in alone),
        "queue_tracing": spec.tracing,  # also where the cluster's add-on is its owner's
        "cloudfront": {
            "hostname": spec.cloudfront_hostname,
            "certificate_arn": spec.cloudfront_certificate_arn,
        }
        if spec.cloudfront
        else None,
        "worker_namespaces": [place.namespace for place, _ in placements(spec)],
        **spec.model_dump(mode="json", include=_OF_QUEUE),
    }
    # add-ons of an existing cluster, and what they may do, are its owner's
    addons = {"container_insights": False, "tracing": False} if spec.cluster else {}
    return {
        "deployment_name": name,
        **spec.model_dump(mode="json", include=_PASSED),
        **addons,
        "models": [
            {"bucket": bucket, "prefix": prefix}
            for bucket, prefix in sorted(models)
            if not spec.cluster
        ],
        "instance_types": list(spec.instance_names),
        "image_uri": image or spec.image_uri,
        **(queue if spec.async_ else {}),
    }


def _backend(folder: Path, name: str, spec: EksSpec) -> str:
    """Terraform's state in a bucket of the user's, with a lock file beside it."""
    path = folder / "backend.tf.json"
    s3 = {
        "bucket": spec.state_bucket,
        "key": f"{name}/{spec.region}/terraform.tfstate",
        "region": spec.region,
        "encrypt": True,
        "use_lockfile": True,
    }
    path.write_text(json.dumps({"terraform": {"backend": {"s3": s3}}}, indent=2) + "\n")
    return str(path)


def _queue(folder: Path) -> list[str]:
    """The queue's module, and its call."""
    (folder / "queue").mkdir(exist_ok=True)
    targets = {path: folder / path.name for path in ASYNCHRONOUS.glob("*.tf")}
    parts = [path for path in QUEUE.glob("*.tf") if path.name != "provider.tf"]  # it is a module
    targets |= {path: folder / "queue" / path.name for path in parts}
    for path, target in targets.items():
        shutil.copyfile(path, target)
    return sorted(map(str, targets.values()))
