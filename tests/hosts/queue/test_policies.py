"""The roles of front and worker may do what their code does: the module's policies, enforced.

moto authorizes every call once it is asked to: by action and resource for S3 and SQS, by action
alone for SNS, whose resources are compared here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.local import stand_in, workers
from hosts.queue.messages import read
from tests.hosts.queue import tasks
from tests.hosts.queue.test_system import PATIENCE_S, call, post, put, status, wait_for

pytestmark = pytest.mark.skipif(
    not shutil.which("terraform"), reason="terraform is not installed: the module cannot be run"
)
RUNTIMES = {"sd15": tasks.MODEL}
INPUTS = "inputs-of-somebody"
#: what the two roles and the way of a task are made of; the rest takes minutes
TARGETS = (
    "aws_iam_role_policy.front",
    "aws_iam_role_policy.worker",
    "aws_sns_topic_subscription.this",
)
ADMIN = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


@dataclass
class Account:
    """A stand-in with the module applied, that authorizes every call.

    Attributes:
        admin: may do everything.
        worker: the environment of a worker with its role.
    """

    admin: boto3.Session
    front: Front
    worker: dict[str, str]
    outputs: dict[str, Any]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, make_module: Any) -> Iterator[Account]:
    folder, run = make_module(tmp_path_factory.mktemp("policies"))
    shutil.copy(folder / "stand_in" / "moto_override.tf", folder)
    (folder / "front.zip").write_bytes(b"")
    given = {"runtimes": RUNTIMES, "input_buckets": [INPUTS], "front_package": "front.zip"}
    (folder / "terraform.tfvars.json").write_text(json.dumps(given))
    with stand_in.serve("moto", folder / "log") as endpoint:
        aws = stand_in.environment(endpoint)
        targets = [f"-target={one}" for one in TARGETS]
        run("apply", "-auto-approve", "-input=false", "-no-color", *targets, **aws)
        told = {k: v["value"] for k, v in json.loads(run("output", "-json", **aws)).items()}
        yield authorized(endpoint, told)


def authorized(endpoint: str, outputs: dict[str, Any]) -> Account:
    """From here on every call needs the right of whoever makes it."""
    free = session(endpoint, "local", "local")
    free.client("s3").create_bucket(Bucket=INPUTS)
    iam = free.client("iam")
    iam.create_user(UserName="admin")
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(ADMIN))
    key = iam.create_access_key(UserName="admin")["AccessKey"]
    environments = {}
    for role in ("front", "worker"):
        open_sns(iam, f"stable-diffusion-{role}", role)
        arn = iam.get_role(RoleName=f"stable-diffusion-{role}")["Role"]["Arn"]
        own = free.client("sts").assume_role(RoleArn=arn, RoleSessionName=role)["Credentials"]
        environments[role] = own["AccessKeyId"], own["SecretAccessKey"], own["SessionToken"]
    switch = f"{endpoint}/moto-api/reset-auth", b"0", {"content-type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(*switch)).close()
    of_front = session(endpoint, *environments["front"])
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    topic = outputs["workers"]["sd15"]["WORKER_TOPIC_ARN"].replace("-results", "-tasks")
    return Account(
        session(endpoint, key["AccessKeyId"], key["SecretAccessKey"]),
        Front(
            Settings(topic=topic, bucket=outputs["bucket"], runtimes=RUNTIMES),
            of_front.client("sns"),
            of_front.client("s3"),
        ),
        {
            **stand_in.environment(endpoint),
            **dict(zip(names, environments["worker"], strict=True)),
            **outputs["workers"]["sd15"],
        },
        outputs,
    )


def session(endpoint: str, *credentials: str) -> boto3.Session:
    made = boto3.Session(*credentials, region_name=stand_in.REGION)
    client = made.client
    made.client = lambda name: client(name, endpoint_url=endpoint)  # type: ignore[method-assign, assignment]
    return made


def open_sns(iam: Any, role: str, policy: str) -> None:
    """moto does not know which topic a call is about: publishing is by action alone."""
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    (publish,) = [one for one in document["Statement"] if "sns:Publish" in str(one["Action"])]
    assert publish["Resource"].endswith("-tasks" if policy == "front" else "-results")
    anywhere = {**document, "Statement": [{**publish, "Resource": "*"}]}
    iam.put_role_policy(RoleName=role, PolicyName="sns", PolicyDocument=json.dumps(anywhere))


@pytest.fixture
def worker(
    account: Account, tiny_model: Any, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port, log = stand_in.free_port(), tmp_path / "log"
    settings = {
        "WORKER_PORT": str(port),
        "WORKER_HOST": "127.0.0.1",
        "WORKER_POLL_S": "1",
        "WORKER_GRACE_S": "0",
        "SD_MODEL": str(tiny_model("sd1")),
        "SD_THREADS": "1",
    }
    process = workers.start(log, {**account.worker, **settings})
    workers.wait_ready(process, port, log)
    yield process, port
    process.terminate()
    process.wait(60)
    assert "AccessDenied" not in log.read_text(), log.read_text()


def test_a_task_from_the_front_to_its_end(
    account: Account, worker: Any, photo: Image.Image
) -> None:
    link = put(account.admin, _Bucket(INPUTS), "in.png", photo)
    body = tasks.newer("a-1", "image-to-image", image_link=link)
    assert post(account.front, "/v1alpha2", body)[0] == 200
    done = wait_for(account.front, "a-1")
    assert done["status"] == "completed", done
    assert post(account.front, "/v1alpha2", body)[0] == 200, "the claim is read"
    account.front._claim(read(tasks.newer("a-2")))
    assert status(account.front, "a-2", method="DELETE")[0] == 200
    assert post(account.front, "/v1alpha2", tasks.newer("a-2"))[0] == 200
    assert wait_for(account.front, "a-2")["status"] == "cancelled"
    assert call(account.front, {"httpMethod": "GET", "path": "/v1alpha2/tasks/none"})[0] == 404


def test_what_is_no_task_is_buried(account: Account, worker: Any) -> None:
    sqs, queue = account.admin.client("sqs"), account.outputs["queues"]["sd15"]
    sqs.send_message(QueueUrl=queue, MessageBody="no task")
    got = sqs.receive_message(QueueUrl=account.worker["WORKER_DEAD_LETTER_URL"], WaitTimeSeconds=20)
    assert [one["Body"] for one in got["Messages"]] == ["no task"]


def test_a_task_that_is_handed_back_is_not_one_that_failed(account: Account, worker: Any) -> None:
    process, port = worker
    long = tasks.newer("h-1", steps=150, batch_size=8, height=512, width=512)
    assert post(account.front, "/v1alpha2", long)[0] == 200
    end = time.monotonic() + PATIENCE_S
    while "worker_tasks_in_flight 1.0" not in metrics(port):
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0
    listed = account.admin.client("s3").list_objects_v2(
        Bucket=account.outputs["bucket"], Prefix=".handed-back/"
    )
    assert listed["KeyCount"] == 1, "it counts as tried"


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text: str = answer.read().decode()
        return text


@dataclass
class _Bucket:
    bucket: str
