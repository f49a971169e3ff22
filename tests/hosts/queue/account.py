"""An account of a stand-in with the Terraform module applied, and its roles taken.

moto authorizes every call: by action and resource for S3 and SQS, by action alone for SNS and
CloudWatch; SNS' resources are compared here. ministack keeps policies and lets every call through.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from deploy.check import provider
from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.local import stand_in

#: what the two roles and the way of a task are made of; the rest takes minutes
TARGETS = (
    "aws_iam_role_policy.front",
    "aws_iam_role_policy.worker",
    "aws_sns_topic_subscription.this",
)
ADMIN = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
PAYING = "key-of-a-paying-user"
Credentials = tuple[str, str, str]


@dataclass
class Account:
    """A stand-in with the module applied; moto authorizes every call.

    Attributes:
        admin: may do everything.
        roles: credentials of the roles `front` and `worker`.
    """

    endpoint: str
    admin: boto3.Session
    roles: Mapping[str, Credentials]
    outputs: dict[str, Any]
    runtimes: Mapping[str, str]

    @property
    def tasks_topic(self) -> str:
        """The topic that the front door publishes to."""
        topic: str = self.outputs["results_topic"]
        return topic.replace("-results", "-tasks")

    @property
    def front(self) -> Front:
        """The front door with its role."""
        return self.front_at(self.endpoint)

    def front_at(self, endpoint: str) -> Front:
        """The same, by another address of the stand-in."""
        own = session(endpoint, *self.roles["front"])
        settings = Settings(
            topic=self.tasks_topic,
            bucket=self.outputs["bucket"],
            runtimes=self.runtimes,
            dynamic="dynamic" if "dynamic" in self.outputs["workers"] else "",
            priority_keys=frozenset({PAYING}),
        )
        return Front(settings, own.client("sns"), own.client("s3"))

    def worker(self, runtime: str, endpoint: str | None = None) -> dict[str, str]:
        """The environment of a worker with its role."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return {
            **stand_in.environment(endpoint or self.endpoint),
            **dict(zip(names, self.roles["worker"], strict=True)),
            **self.outputs["workers"][runtime],
        }


@contextmanager
def applied(
    module: tuple[Path, Callable[..., str]], given: Mapping[str, Any], kind: str = "moto"
) -> Iterator[Account]:
    """Apply the module with these variables on a stand-in of its own."""
    folder, run = module
    shutil.copytree(folder / "stand_in", folder, dirs_exist_ok=True)
    (folder / "front.zip").write_bytes(b"")
    variables = {**given, "front_package": "front.zip"}
    (folder / "terraform.tfvars.json").write_text(json.dumps(variables))
    with stand_in.serve(kind, folder / "log") as endpoint:
        aws = stand_in.environment(endpoint)
        targets = [f"-target={one}" for one in TARGETS]
        with provider.attached(folder, aws) as attached:
            run("apply", "-auto-approve", "-input=false", "-no-color", *targets, **attached)
        outputs = {k: v["value"] for k, v in json.loads(run("output", "-json", **aws)).items()}
        account = _account(endpoint, outputs, given["runtimes"])
        if kind == "moto":  # from here on every call needs the right of whoever makes it
            switch = f"{endpoint}/moto-api/reset-auth", b"0", {"content-type": "text/plain"}
            urllib.request.urlopen(urllib.request.Request(*switch)).close()
        yield account


def _account(endpoint: str, outputs: dict[str, Any], runtimes: Mapping[str, str]) -> Account:
    """Credentials of an administrator and of the module's two roles."""
    free = session(endpoint, "local", "local")
    iam = free.client("iam")
    iam.create_user(UserName="admin")
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(ADMIN))
    key = iam.create_access_key(UserName="admin")["AccessKey"]
    roles = {}
    for role in ("front", "worker"):
        name = f"stable-diffusion-{stand_in.REGION}-{role}"
        _as_moto_names(iam, name, role)
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
        own = free.client("sts").assume_role(RoleArn=arn, RoleSessionName=role)["Credentials"]
        roles[role] = own["AccessKeyId"], own["SecretAccessKey"], own["SessionToken"]
    admin = session(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    return Account(endpoint, admin, roles, outputs, runtimes)


def session(endpoint: str, *credentials: str) -> boto3.Session:
    """A session whose clients talk to the stand-in."""
    made = boto3.Session(*credentials, region_name=stand_in.REGION)
    client = made.client
    made.client = lambda name: client(name, endpoint_url=endpoint)  # type: ignore[method-assign, assignment]
    return made


def _as_moto_names(iam: Any, role: str, policy: str) -> None:
    """Add what moto asks for by another name, from what the policy allows.

    It does not know which topic a call is about, so that publishing is by action alone; and it
    calls the actions of CloudWatch after its endpoint, monitoring.
    """
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    statements = {action: one for one in document["Statement"] for action in _actions(one)}
    publish = statements["sns:Publish"]
    assert publish["Resource"].endswith("-tasks" if policy == "front" else "-results")
    added = [{**publish, "Resource": "*"}]
    if "cloudwatch:PutMetricData" in statements:
        added.append({"Effect": "Allow", "Action": "monitoring:PutMetricData", "Resource": "*"})
    document = {**document, "Statement": added}
    iam.put_role_policy(RoleName=role, PolicyName="moto", PolicyDocument=json.dumps(document))


def _actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else action
