"""Front door, topic, queues, a real worker process, bucket. LONG=1: on moto, too."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.app import Api
from hosts.queue.front import handler
from hosts.queue.front.publish import Front
from hosts.queue.local import stand_in, workers
from hosts.queue.local.topology import Topology
from hosts.queue.messages import read
from hosts.queue.worker import figures
from hosts.queue.worker.store import Store
from runnables.runnable import StableDiffusionRunnable
from tests.hosts.queue import tasks
from tests.hosts.queue.conftest import PAYING
from tests.runnables.extensions.test_lora import write as write_lora

System = tuple[Topology, Front]
PATIENCE_S = 300  # of a busy machine
DASHBOARD = Path(__file__).resolve().parents[3] / "deploy" / "observability" / "grafana.json"


@pytest.fixture(scope="module")
def folders(
    tiny_model: Callable[[str], Path],
    controlnets: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Settings of the model, and of a LoRA "ink" and ControlNets "one" and "two" for it."""
    loras = tmp_path_factory.mktemp("loras")
    write_lora(loras, "ink", tiny_model("sd1"))
    return {
        "model": str(tiny_model("sd1")),
        "lora_dir": str(loras),
        "controlnet_dir": str(controlnets("sd1")),
    }


@pytest.fixture(scope="module")
def system(
    make_system: Callable[[], System], endpoint: str, log: Any, folders: dict[str, str]
) -> Iterator[tuple[Topology, Front, subprocess.Popen[bytes], int]]:
    """A system with one worker."""
    topology, front = make_system()
    port = stand_in.free_port()
    process = workers.start(
        log,
        {
            **stand_in.environment(endpoint),
            **workers.settings(topology, "sd15"),
            "WORKER_PORT": str(port),
            "WORKER_POLL_S": "1",
            "WORKER_SAGEMAKER": "true",
            "SD_THREADS": "1",
            **{f"SD_{name.upper()}": value for name, value in folders.items()},
        },
    )
    workers.wait_ready(process, port, log)
    yield topology, front, process, port
    process.terminate()
    process.wait(300)


def post(front: Front, path: str, body: Any, key: str = "", **headers: str) -> tuple[int, Any]:
    event = {
        "httpMethod": "POST",
        "path": path,
        "headers": headers,
        "body": body if isinstance(body, str) else json.dumps(body),
        "requestContext": {"identity": {"apiKeyId": key}},
    }
    return call(front, event)


def call(front: Front, event: dict[str, Any]) -> tuple[int, Any]:
    answer = handler.answer(front, event)
    return answer["statusCode"], json.loads(answer["body"])


def status(front: Front, id: str, prefix: str = "output", method: str = "GET") -> tuple[int, Any]:
    event = {"httpMethod": method, "path": f"/v1alpha2/tasks/{id}"}
    return call(front, {**event, "queryStringParameters": {"prefix": prefix}})


def wait_for(front: Front, id: str, prefix: str = "output") -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        code, told = status(front, id, prefix)
        assert code == 200
        if told["status"] != "queued":
            return dict(told)
        time.sleep(0.1)
    raise AssertionError(f"{id} did not end")


def completions(aws: Any, topology: Topology, id: str) -> list[dict[str, Any]]:
    """Completion messages of one task, until SageMaker's form is there too."""
    sqs, found = aws.client("sqs"), []
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        got = sqs.receive_message(
            QueueUrl=topology.watch, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=1
        )
        for message in got.get("Messages", []):
            told = json.loads(message["Body"])
            if id in (told.get("id"), told.get("inferenceId")) or (
                told.get("parameters", {}).get("id_task") == id
            ):
                sqs.delete_message(QueueUrl=topology.watch, ReceiptHandle=message["ReceiptHandle"])
                found.append(told)
        if len(found) >= 2:
            break
    return sorted(found, key=lambda one: "inferenceId" in one)


def test_newer_form(system: Any, aws: Any) -> None:
    topology, front, _, _ = system
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    code, reply = post(front, "/v1alpha2", tasks.newer("n-1", batch_size=2), traceparent=trace)
    location = f"s3://{topology.bucket}/output/n-1"
    assert (code, reply) == (200, {"id": "n-1", "runtime": "sd15", "output_location": location})
    told = wait_for(front, "n-1")
    assert told["status"] == "completed", told
    assert len(told["images"]) == len(told["image_url"]) == 2
    assert told["seeds"][1] == told["seeds"][0] + 1
    with urllib.request.urlopen(told["images"][0]) as answer:
        image = Image.open(io.BytesIO(answer.read()))
    assert image.size == (128, 128) and "Steps: 2" in image.info["parameters"]
    done, sagemaker = completions(aws, topology, "n-1")
    assert done["result"] is True and done["context"] == {"userid": "u-1"}
    assert done["image_url"] == told["image_url"] and done["output_url"] == told["output_url"]
    assert sagemaker["invocationStatus"] == "Completed"
    assert sagemaker["responseParameters"]["outputLocation"] == told["output_url"]
    bucket, _, key = told["image_url"][0].removeprefix("s3://").partition("/")
    stored = aws.client("s3").head_object(Bucket=bucket, Key=key)
    assert stored["Metadata"]["traceparent"].split("-")[1] == trace.split("-")[1]


def test_older_form(system: Any, aws: Any) -> None:
    topology, front, _, _ = system
    code, reply = post(front, "/v1alpha1", tasks.older("o-1", sampler_name="DPM++ 2M Karras"))
    assert code == 200
    assert reply == {
        "id_task": "o-1",
        "sd_model_checkpoint": tasks.MODEL,
        "output_location": f"s3://{topology.bucket}/outputs/o-1",
    }
    told = wait_for(front, "o-1", "outputs")
    assert told["status"] == "completed", told
    assert told["parameters"]["scheduler"] == "dpmpp_2m_karras"
    done = completions(aws, topology, "o-1")[0]
    assert done["parameters"]["status"] == 1
    assert done["parameters"]["image_url"] == told["image_url"][0]


@pytest.mark.parametrize("form", ["v1alpha1", "v1alpha2"])
def test_image_to_image(system: Any, aws: Any, form: str, photo: Image.Image) -> None:
    topology, front, _, _ = system
    link, kind = put(aws, topology, "in.png", photo), "image-to-image"
    body = tasks.older(f"i-{form}", kind, link, denoising_strength=0.5)
    if form == "v1alpha2":
        body = tasks.newer(f"i-{form}", kind, image_link=link, denoising_strength=0.5)
    assert post(front, f"/{form}", body)[0] == 200
    told = wait_for(front, f"i-{form}", "output" if form == "v1alpha2" else "outputs")
    assert told["status"] == "completed", told
    assert told["parameters"]["strength"] == 0.5


def put(aws: Any, topology: Topology, name: str, picture: Image.Image) -> str:
    """Store a picture; its address."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    aws.client("s3").put_object(Bucket=topology.bucket, Key=name, Body=buffer.getvalue())
    return f"s3://{topology.bucket}/{name}"


def stored(aws: Any, link: str) -> bytes:
    bucket, _, key = link.removeprefix("s3://").partition("/")
    return bytes(aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


def images(aws: Any, told: dict[str, Any]) -> list[Image.Image]:
    """What a task's end says is stored."""
    assert told["status"] == "completed", told
    return [Image.open(io.BytesIO(stored(aws, url))) for url in told["image_url"]]


def test_enlarging(system: Any, aws: Any, photo: Image.Image) -> None:
    topology, front, _, _ = system
    link = put(aws, topology, "small.png", photo)
    other = put(aws, topology, "turned.png", photo.rotate(90).crop((0, 0, 64, 32)))
    hires = {"enable_hr": True, "hr_scale": 1.5, "width": 64, "height": 64}
    batch = tasks.extra("u-3", "extra-batch-image", image_link=f"{link}, {other}")
    for body in (tasks.extra("u-1", image_link=link), tasks.newer("u-2", **hires), batch):
        assert post(front, "/v1alpha2", body)[0] == 200
    (larger,) = images(aws, wait_for(front, "u-1"))
    assert larger.size == (128, 128)
    assert [one.size for one in images(aws, wait_for(front, "u-2"))] == [(96, 96)]
    first, second = images(aws, wait_for(front, "u-3"))
    assert first.size == larger.size and (np.asarray(first) == np.asarray(larger)).all()
    assert second.size == (128, 64)


def test_a_webui_body_is_drawn_as_over_http(
    system: Any,
    aws: Any,
    folders: dict[str, str],
    start: Callable[..., StableDiffusionRunnable],
    photo: Image.Image,
    mask: Image.Image,
) -> None:
    topology, front, _, _ = system
    pictures = {"in": photo, "mask": mask, "control": photo.rotate(180)}
    links = {name: put(aws, topology, f"{name}.png", one) for name, one in pictures.items()}
    text = {name: base64.b64encode(stored(aws, link)).decode() for name, link in links.items()}
    asked = {
        "prompt": "a (red:1.3) circle <lora:ink:0.7>",
        "steps": 3,
        "seed": 7,
        "width": 64,
        "height": 96,
        "sampler_name": "DPM++ 2M",
        "scheduler": "Karras",
        "denoising_strength": 0.9,
    }
    redrawn = {**asked, "inpainting_mask_invert": 1, "resize_mode": 1}
    unit = {"model": "one", "weight": 0.8, "guidance_end": 0.7}
    http = TestClient(Api(start("sd1", **folders)).app())

    def both(id: str, kind: str, path: str, queued: Any, sent: Any) -> tuple[Any, Any]:
        assert post(front, "/v1alpha2", tasks.newer(id, kind, **queued))[0] == 200
        (over_queue,) = images(aws, wait_for(front, id))
        answer = http.post(
            f"/sdapi/v1/{path}", json={**tasks.newer("x")["task"]["content"], **sent}
        )
        over_http = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))
        return np.asarray(over_queue).astype(int), np.asarray(over_http).astype(int)

    def with_unit(**image: str) -> dict[str, Any]:
        return {"alwayson_scripts": {"controlnet": {"args": [{**unit, **image}]}}}

    drawn, expected = both(
        "w-1",
        "text-to-image",
        "txt2img",
        {**asked, **with_unit(image_link=links["control"])},
        {**asked, **with_unit(image=text["control"])},
    )
    assert drawn.shape == (96, 64, 3) and abs(drawn - expected).max() <= 2
    plain, _ = both("w-2", "text-to-image", "txt2img", asked, asked)
    assert abs(drawn - plain).max() > 2, "the ControlNet acts"
    drawn, expected = both(
        "w-3",
        "image-to-image",
        "img2img",
        {**redrawn, "image_link": links["in"], "mask": links["mask"]},
        {**redrawn, "init_images": [text["in"]], "mask": text["mask"]},
    )
    assert abs(drawn - expected).max() <= 2
    missing = tasks.newer("w-4", prompt="x <lora:nothing:1>", steps=1)
    assert post(front, "/v1alpha2", missing)[0] == 200
    told = wait_for(front, "w-4")
    assert told["status"] == "failed" and "nothing" in told["error"]


def test_a_task_at_fault_is_answered_as_failed(system: Any, aws: Any) -> None:
    topology, front, _, _ = system
    link = f"s3://{topology.bucket}/nothing.png"
    body = tasks.newer("f-1", "image-to-image", image_link=link)
    assert post(front, "/v1alpha2", body)[0] == 200
    told = wait_for(front, "f-1")
    assert told["status"] == "failed" and "nothing.png" in told["error"]
    done, sagemaker = completions(aws, topology, "f-1")
    assert done["result"] is False and "nothing.png" in done["error"]
    assert sagemaker["invocationStatus"] == "Failed"


def test_a_task_sent_twice_is_drawn_once(system: Any, aws: Any) -> None:
    topology, front, _, _ = system
    for _ in range(2):
        assert post(front, "/v1alpha2", tasks.newer("t-1"))[0] == 200
    wait_for(front, "t-1")
    assert len(completions(aws, topology, "t-1")) >= 2
    listed = aws.client("s3").list_objects_v2(Bucket=topology.bucket, Prefix="output/t-1/")
    assert len(listed["Contents"]) == 3  # claim, image, manifest
    code, told = post(front, "/v1alpha2", tasks.newer("t-1", prompt="something else"))
    assert code == 409 and told["detail"][0]["loc"] == ["id"]


def test_a_cancelled_task_is_not_drawn(system: Any, aws: Any) -> None:
    topology, front, _, _ = system
    assert status(front, "c-1", method="DELETE")[0] == 404
    front._claim(read(tasks.newer("c-1")))  # accepted, but not delivered yet
    assert status(front, "c-1")[1]["status"] == "queued"
    assert status(front, "c-1", method="DELETE") == (200, {"id": "c-1", "status": "cancelling"})
    assert post(front, "/v1alpha2", tasks.newer("c-1"))[0] == 200
    assert wait_for(front, "c-1")["status"] == "cancelled"
    done, _ = completions(aws, topology, "c-1")
    assert done["result"] is False and done["status"] == "cancelled"
    assert status(front, "c-1", method="DELETE")[0] == 409


def test_what_no_queue_would_take_is_refused_at_the_door(make_system: Any) -> None:
    _, front = make_system()
    strange = tasks.newer("u-1")
    strange["task"]["metadata"]["runtime"] = "nowhere"
    for body, code, field in (
        (strange, 404, "runtime"),
        (tasks.newer("u-2", steps=1000), 400, "steps"),
        ("{", 400, "body"),
        ("x" * 300_000, 413, "body"),
    ):
        answered, told = post(front, "/v1alpha2", body)
        assert (answered, told["detail"][0]["loc"][-1]) == (code, field)
    assert post(front, "/v1", {})[0] == 404


def test_paying_users_go_by_the_priority_queue(make_system: Any, aws: Any) -> None:
    topology, front = make_system()
    post(front, "/v1alpha2", tasks.newer("p-1"), key=PAYING)
    post(front, "/v1alpha1", tasks.older("p-2"), key=PAYING)
    post(front, "/v1alpha2", tasks.newer("p-3"))
    other = tasks.older("p-4")
    other["alwayson_scripts"]["sd_model_checkpoint"] = "another.safetensors"
    post(front, "/v1alpha1", other)
    arrived = {queue: ids(aws, queue) for urls in topology.queues.values() for queue in urls}
    urgent, standard = topology.queues["sd15"]
    dynamic = topology.queues["dynamic"]
    assert arrived == {
        urgent: {"p-1", "p-2"},
        standard: {"p-3"},
        dynamic[0]: set(),
        dynamic[1]: {"p-4"},
    }


def ids(aws: Any, queue: str) -> set[str]:
    got = aws.client("sqs").receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1
    )
    return {json.loads(one["Body"])["metadata"]["id"] for one in got.get("Messages", [])}


def test_what_is_no_task_goes_to_the_dead_letters_with_its_reason(system: Any, aws: Any) -> None:
    topology, _, _, _ = system
    sqs = aws.client("sqs")
    sqs.send_message(QueueUrl=topology.queues["sd15"][1], MessageBody="no JSON at all")
    got = sqs.receive_message(
        QueueUrl=topology.dead_letters, WaitTimeSeconds=20, MessageAttributeNames=["All"]
    )
    (message,) = got["Messages"]
    assert message["Body"] == "no JSON at all"
    assert "not JSON" in message["MessageAttributes"]["reason"]["StringValue"]


def test_probes_and_metrics(system: Any) -> None:
    _, front, _, port = system
    post(front, "/v1alpha2", tasks.newer("m-1"))
    wait_for(front, "m-1")
    for path in ("livez", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
            assert answer.status == 200
    end, text = time.monotonic() + PATIENCE_S, ""
    # the manifest is there first, then the end is announced, then it is counted
    while 'worker_tasks_total{outcome="completed"}' not in text and time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    assert 'worker_tasks_total{outcome="completed"}' in text and "sd_batch_rows" in text
    exposed = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    asked = set(re.findall(r"\b(?:worker|sd)_[a-z0-9_]+", DASHBOARD.read_text()))
    assert len([name for name in asked if name.startswith("worker_")]) == 3
    # jobs, webhooks and requests are of the hosts that speak HTTP
    elsewhere = {name for name in asked if re.match(r"sd_(jobs?|webhooks|requests)(_|$)", name)}
    assert asked - elsewhere <= exposed, asked - elsewhere - exposed
    assert {*figures.GAUGES.values(), *figures.COUNTERS.values()} <= exposed


def test_sigterm_hands_back_what_cannot_be_finished(
    make_system: Any, aws: Any, system: Any
) -> None:
    topology, front, process, _ = system
    post(front, "/v1alpha2", tasks.newer("s-1", steps=150, batch_size=8, height=512, width=512))
    queue = topology.queues["sd15"][1]
    sqs = aws.client("sqs")
    hidden = "ApproximateNumberOfMessagesNotVisible"
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[hidden])
        if told["Attributes"][hidden] == "1":
            break
        time.sleep(0.1)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(300) == 0
    took = time.monotonic() - started
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5, AttributeNames=["All"])[
        "Messages"
    ]
    assert json.loads(message["Body"])["metadata"]["id"] == "s-1", took
    before = int(message["Attributes"]["ApproximateReceiveCount"]) - 1
    excused = Store(aws.client("s3"), topology.bucket).excuses(message["MessageId"])
    assert excused == before >= 1, "none of them was an attempt"


def test_a_task_handed_back_many_times_is_drawn_and_one_that_fails_is_given_up(
    make_system: Any, aws: Any, endpoint: str, log: Any, folders: dict[str, str]
) -> None:
    topology, front = make_system()
    sqs, queue = aws.client("sqs"), topology.queues["sd15"][1]
    store = Store(aws.client("s3"), topology.bucket)
    for id, handed_back in (("b-1", True), ("b-2", False)):
        assert post(front, "/v1alpha2", tasks.newer(id))[0] == 200
        for received in range(1, 7):
            got = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20, VisibilityTimeout=60)
            (message,) = got["Messages"]
            if handed_back:
                store.excuse(message["MessageId"], received)
            last = 30 if received == 6 and handed_back else 0  # the other one is next
            sqs.change_message_visibility(
                QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=last
            )
    process = workers.start(
        log,
        {
            **stand_in.environment(endpoint),
            **workers.settings(topology, "sd15"),
            "WORKER_PORT": str(stand_in.free_port()),
            "WORKER_POLL_S": "1",
            "SD_THREADS": "1",
            "SD_MODEL": folders["model"],
        },
    )
    drawn, failed = wait_for(front, "b-1"), wait_for(front, "b-2")
    process.terminate()
    assert process.wait(300) == 0
    assert drawn["status"] == "completed", drawn
    assert failed["status"] == "failed" and "given up" in failed["error"]


@pytest.fixture
def dynamic(
    make_system: Any,
    endpoint: str,
    log: Any,
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
) -> Iterator[tuple[Front, Path]]:
    """A front and a dynamic worker; the folder of its models has "sd1" and "broken"."""
    topology, front = make_system()
    (tmp_path / "sd1").symlink_to(tiny_model("sd1"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    port = stand_in.free_port()
    process = workers.start(
        log,
        {
            **stand_in.environment(endpoint),
            **workers.settings(topology, "dynamic"),
            "WORKER_DYNAMIC": "true",
            "WORKER_ATTEMPTS": "2",
            "WORKER_BACKOFF_S": "0",
            "WORKER_POLL_S": "1",
            "WORKER_PORT": str(port),
            "SD_MODELS_DIR": str(tmp_path),
            "SD_THREADS": "1",
        },
    )
    workers.wait_ready(process, port, log)
    yield front, tmp_path
    process.terminate()
    assert process.wait(300) == 0


def test_a_dynamic_worker_takes_the_model_that_a_task_names(
    dynamic: tuple[Front, Path], tiny_model: Callable[[str], Path]
) -> None:
    front, folder = dynamic

    def end_of(id: str, model: str) -> dict[str, Any]:
        body = tasks.older(id)
        body["alwayson_scripts"]["sd_model_checkpoint"] = model
        assert post(front, "/v1alpha1", body)[0] == 200
        return wait_for(front, id, "outputs")

    done = end_of("d-1", "sd1")
    assert done["status"] == "completed" and done["parameters"]["model"] == "sd1", done
    missing = end_of("d-2", "sd2")
    assert missing["status"] == "failed" and "there is no model 'sd2'" in missing["error"]
    (folder / "sd2").symlink_to(tiny_model("sd2"))
    assert end_of("d-3", "sd2")["parameters"]["model"] == "sd2", "it has arrived since"
    broken = end_of("d-4", "broken")
    assert broken["status"] == "failed" and broken["attempt"] == 2
    assert "the model broken cannot be loaded" in broken["error"]
