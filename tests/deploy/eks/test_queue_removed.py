"""`async: true`, then no more: what was the queue's is gone, and nothing else.

Applied on moto and looked at by AWS' own APIs; in an existing cluster, so that most is the queue.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.check import terraform
from deploy.check.inventory import inventory
from deploy.check.ready import DEPLOY, Ready
from deploy.check.stand_in import Overrides, stand_in
from models import bucket
from runnables.checkpoints import manifest
from sd_aws_eks import files
from tests.deploy.conftest import needs_terraform
from tests.long import long

pytestmark = [long, needs_terraform]
MODELS = "my-models"
QUEUE = {
    "async_": True,  # as bentoctl hands it on
    "existing_controllers": ["karpenter", "aws-load-balancer-controller"],
    "clients": {"shop": "priority", "blog": "standard"},
    "access_log": True,
    "api_gateway_account": True,
    "cloudfront": True,
    "cloudfront_hostname": "tasks.example.com",
    "cloudfront_certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d",
}


class Deployment:
    """A generated folder, on a stand-in of its own."""

    def __init__(self, folder: Path, aws: Any) -> None:
        self.folder, self.aws = folder, aws
        self.env = {**terraform.configuration(folder), **aws.env, "TF_IN_AUTOMATION": "1"}
        document = yaml.safe_load((DEPLOY / "eks" / "existing-cluster.yaml").read_text())
        self.overrides = Overrides(Ready(DEPLOY / "eks" / "existing-cluster.yaml", document))
        document = self.overrides.prepare(document, aws.client)
        self.name, self.spec = document["name"], document["spec"] | {"models_bucket": MODELS}
        del self.spec["internal"]

    def apply(self, **fields: Any) -> str:
        """Generate with these fields, and apply; return what Terraform said."""
        files.generate(self.name, self.spec | fields, "terraform", str(self.folder), False)
        self.overrides.lay(self.folder)
        self.run("init", "-input=false")
        return self.run(
            "apply", "-auto-approve", "-input=false", "-no-color", "-var-file=bentoctl.tfvars"
        )

    def run(self, *command: str) -> str:
        return terraform.run(["terraform", *command], self.folder, self.env)

    @property
    def found(self) -> Counter[str]:
        """What AWS' APIs list."""
        client: Callable[[str], Any] = self.aws.client
        gateway, cloudwatch = client("apigateway"), client("cloudwatch")
        more = {
            "cloudfront distributions": client("cloudfront")
            .list_distributions()["DistributionList"]
            .get("Items", []),
            "apigateway keys": gateway.get_api_keys()["items"],
            "apigateway plans": gateway.get_usage_plans()["items"],
            "cloudwatch dashboards": cloudwatch.list_dashboards()["DashboardEntries"],
            "sns subscriptions": client("sns").list_subscriptions()["Subscriptions"],
        }
        return inventory(client) + Counter({name: len(its) for name, its in more.items()})


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with stand_in() as aws:
        yield Deployment(tmp_path, aws)


def test_a_queue_that_is_wanted_no_more_is_gone(
    deployment: Deployment, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    before = deployment.found
    deployment.apply(**QUEUE)
    made = deployment.found - before
    kinds = {
        *("sqs QueueUrls", "sns Topics", "sns subscriptions", "lambda Functions", "iam Roles"),
        *("s3 Buckets", "apigateway items", "apigateway keys", "apigateway plans"),
        *("logs logGroups", "cloudwatch MetricAlarms", "cloudfront distributions"),
    }
    assert made.keys() >= kinds
    s3 = deployment.aws.client("s3")
    push(s3, tiny_model("sd1"), tmp_path / "sd1")
    (results,) = {one["Name"] for one in s3.list_buckets()["Buckets"]} - {MODELS}
    s3.put_object(Bucket=results, Key="shop/a.out", Body=b"{}")
    with pytest.raises(terraform.Failed, match="BucketNotEmpty"):
        deployment.apply()
    s3.delete_object(Bucket=results, Key="shop/a.out")
    deployment.apply()
    left = deployment.found - before
    # the models, and what every deployment has
    assert left == {"s3 Buckets": 1, "cloudwatch dashboards": 1, "kms Keys": 1}
    there = list(bucket.listed(bucket.Location.of(f"s3://{MODELS}/"), s3))
    assert [(name, state) for name, _, state in there] == [("sd1", "whole")]


def push(s3: Any, model: Path, folder: Path) -> None:
    """As `python -m models push` does."""
    shutil.copytree(model, folder)
    manifest.write(folder, source="tiny")
    assert bucket.push(folder, bucket.Location.of(f"s3://{MODELS}/"), s3) > 0
