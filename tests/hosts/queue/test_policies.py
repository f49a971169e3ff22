"""The roles of front and worker may do what their code does: the module's policies, enforced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from hosts.queue.local import stand_in, workers
from hosts.queue.messages import read
from hosts.queue.worker import figures
from tests.hosts.queue import tasks
from tests.hosts.queue.account import Account, applied
from tests.hosts.queue.test_system import PATIENCE_S, call, post, put, status, wait_for

pytestmark = pytest.mark.skipif(
    not shutil.which("terraform"), reason="terraform is not installed: the module cannot be run"
)
RUNTIMES = {"sd15": tasks.MODEL}
INPUTS = "inputs-of-somebody"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, make_module: Any) -> Iterator[Account]:
    given = {"runtimes": RUNTIMES, "input_buckets": [INPUTS]}
    with applied(make_module(tmp_path_factory.mktemp("policies")), given) as made:
        made.admin.client("s3").create_bucket(Bucket=INPUTS)
        yield made


@pytest.fixture(scope="module")
def worker(
    account: Account, tiny_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker with its role; the last test ends it."""
    port, log = stand_in.free_port(), tmp_path_factory.mktemp("worker") / "log"
    settings = {
        "WORKER_PORT": str(port),
        "WORKER_HOST": "127.0.0.1",
        "WORKER_POLL_S": "1",
        "WORKER_GRACE_S": "0",
        "SD_MODEL": str(tiny_model("sd1")),
        "SD_THREADS": "1",
    }
    process = workers.start(log, {**account.worker("sd15"), **settings})
    workers.wait_ready(process, port, log)
    yield process, port
    process.terminate()
    process.wait(300)
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


def test_the_workers_figures_are_in_cloudwatch(account: Account, worker: Any) -> None:
    cloudwatch, end = account.admin.client("cloudwatch"), time.monotonic() + PATIENCE_S
    names = [
        {"Name": "Deployment", "Value": "stable-diffusion"},
        {"Name": "Runtime", "Value": "sd15"},
    ]
    found: set[str] = set()
    while not found and time.monotonic() < end:
        told = cloudwatch.list_metrics(Namespace=figures.NAMESPACE, Dimensions=names)["Metrics"]
        found = {one["MetricName"] for one in told}
        time.sleep(0.1)
    assert found == {*figures.GAUGES, *figures.COUNTERS}


def test_what_is_no_task_is_buried(account: Account, worker: Any) -> None:
    sqs, queue = account.admin.client("sqs"), account.outputs["queues"]["sd15"]
    sqs.send_message(QueueUrl=queue, MessageBody="no task")
    got = sqs.receive_message(
        QueueUrl=account.worker("sd15")["WORKER_DEAD_LETTER_URL"], WaitTimeSeconds=20
    )
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
    assert process.wait(300) == 0
    sqs, queue = account.admin.client("sqs"), account.outputs["queues"]["sd15"]
    [again] = sqs.receive_message(
        QueueUrl=queue, WaitTimeSeconds=20, AttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    excused = account.admin.client("s3").list_objects_v2(
        Bucket=account.outputs["bucket"], Prefix=f".handed-back/{again['MessageId']}/"
    )
    # A poll that was under way may have received it a second time: both are handed back.
    handed_back = int(again["Attributes"]["ApproximateReceiveCount"]) - 1
    assert excused["KeyCount"] == handed_back >= 1, "a delivery counts as tried"


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text: str = answer.read().decode()
        return text


@dataclass
class _Bucket:
    bucket: str
