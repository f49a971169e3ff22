"""Parts of the worker that need no AWS: trace headers, spot notices, the pod's annotations."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from opentelemetry.trace import get_current_span
from pydantic import ValidationError

from api.http import tracing
from hosts.queue.completion import Manifest
from hosts.queue.local import stand_in
from hosts.queue.messages import read
from hosts.queue.worker import __main__ as command
from hosts.queue.worker import health, spot
from hosts.queue.worker import worker as module
from hosts.queue.worker.announce import Announcer
from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.pod import Pod
from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.worker import Worker
from runnables.errors import ConfigurationError
from tests.hosts.queue import tasks

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def http() -> Iterator[tuple[str, list[tuple[str, str, bytes]], dict[str, int]]]:
    """(address, requests, path -> status): a real server; paths are 404 but those named."""
    seen: list[tuple[str, str, bytes]] = []
    statuses: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            seen.append((self.command, self.path, body))
            self.send_response(statuses.get(self.path, 404))
            self.end_headers()
            self.wfile.write(b"token")

        do_GET = do_PUT = do_PATCH = _answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen, statuses
    server.shutdown()


def until(true: Any) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
W3C = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"x-amzn-trace-id": XRAY}, "5759e988bd862e3fe1be46a994272793"),
        ({"traceparent": W3C}, W3C.split("-")[1]),
        ({"traceparent": W3C, "x-amzn-trace-id": XRAY}, W3C.split("-")[1]),
        ({"traceparent": "00-xyz", "x-amzn-trace-id": XRAY}, "5759e988bd862e3fe1be46a994272793"),
        ({"traceparent": "00-xyz"}, None),
        ({"x-amzn-trace-id": "Root=1"}, None),
        ({"x-amzn-trace-id": XRAY.replace("5759e988", "nonsense")}, None),
        ({}, None),
    ],
)
def test_trace_context_in_both_forms(headers: dict[str, str], trace: str | None) -> None:
    found = get_current_span(tracing.context_of(headers)).get_span_context()
    assert (f"{found.trace_id:032x}" if found.is_valid else None) == trace


def test_a_spot_notice_stops_the_worker(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, seen, statuses = http
    statuses["/latest/api/token"] = 200
    assert not spot.noticed(address)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
    stopped = threading.Event()
    spot.watch(stopped.set, every_s=0.05)
    until(lambda: len(seen) > 4)
    assert not stopped.is_set()
    statuses["/latest/meta-data/spot/instance-action"] = 200
    assert stopped.wait(300)


def test_a_busy_pod_says_so(http: Any, tmp_path: Path) -> None:
    address, seen, statuses = http
    statuses["/pod"] = 200
    (tmp_path / "token").write_text("secret")
    pod = Pod(f"{address}/pod", tmp_path / "token")
    pod.busy(1)
    until(lambda: len(seen) == 1)
    pod.busy(2)  # no news
    pod.busy(0)
    until(lambda: len(seen) == 2)
    pod.busy(3)
    until(lambda: len(seen) == 3)
    annotations = [json.loads(body)["metadata"]["annotations"] for _, _, body in seen]
    busy, idle, again = annotations
    assert again == busy
    assert busy["karpenter.sh/do-not-disrupt"] == "true"
    assert idle["karpenter.sh/do-not-disrupt"] is None
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert int(busy[cost]) > int(idle[cost])


def test_what_the_pod_was_not_told_is_told_again(http: Any, tmp_path: Path) -> None:
    address, seen, statuses = http
    (tmp_path / "token").write_text("secret")
    pod = Pod(f"{address}/pod", tmp_path / "token")
    pod.busy(1)
    until(lambda: len(seen) == 1)
    statuses["/pod"] = 200
    pod.busy(2)
    until(lambda: len(seen) == 2)


def test_probes_and_metrics() -> None:
    states, port = {"alive": True, "ready": False}, stand_in.free_port()
    health.serve("127.0.0.1", port, lambda: states["ready"], lambda: states["alive"])

    def answers() -> list[int]:
        paths = ("livez", "readyz", "metrics", "other")
        return [httpx.get(f"http://127.0.0.1:{port}/{path}").status_code for path in paths]

    assert answers() == [200, 503, 200, 404]
    states.update(alive=False, ready=True)
    assert answers() == [503, 200, 200, 404]
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").text == "ready\n"
    assert "# HELP" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.parametrize("wrong", [False, True])
def test_the_exit_status_says_how_a_worker_ended(
    wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        if wrong:
            raise ConfigurationError("there is no such model")

    monkeypatch.setattr(sys, "argv", ["worker"])
    monkeypatch.setattr(WorkerSettings, "from_environment", lambda: None)
    monkeypatch.setattr(command, "Worker", lambda *_: SimpleNamespace(run=run))
    assert command.main() == wrong
    assert capsys.readouterr().err == ("there is no such model\n" if wrong else "")


def test_settings_name_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="WORKER_QUEUE_URLS"):
        WorkerSettings.from_environment()
    monkeypatch.setenv("WORKER_QUEUE_URL", "x")
    with pytest.raises(ConfigurationError, match="did you mean WORKER_QUEUE_URLS"):
        WorkerSettings.from_environment()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("visibility_s", 6, 43_200),  # the most that SQS takes, as with poll_s
        ("poll_s", 0, 20),
        ("grace_s", 0, 115),
        ("backoff_s", 0, 900),
        ("attempts", 1, 100),
        ("deliveries", 1, 900),
        ("in_flight", 0, 256),
        ("reserve", 0, None),
        ("port", 0, None),
    ],
)
def test_bounds_of_settings(name: str, least: int, most: int | None) -> None:
    urls = {"queue_urls": "q", "dead_letter_url": "d", "topic_arn": "t", "bucket": "b"}
    for good in (least, most):
        if good is not None:
            assert getattr(WorkerSettings.model_validate({**urls, name: good}), name) == good
    for bad in (least - 1, None if most is None else most + 1):
        if bad is not None:
            with pytest.raises(ValidationError, match=name):
                WorkerSettings.model_validate({**urls, name: bad})


def test_defaults_are_those_that_the_documents_name() -> None:
    kubernetes = ROOT / "deploy" / "kubernetes" / "components" / "queue" / "worker.yaml"
    text = (ROOT / "docs" / "queue.md").read_text() + kubernetes.read_text()
    named = re.findall(r"WORKER_([A-Z_]+)`? \((\d+)", text)
    fields = WorkerSettings.model_fields
    told = {(name.lower(), float(value)) for name, value in named}
    assert told == {(name, float(fields[name].default)) for name, _ in told}
    assert {"attempts", "visibility_s", "grace_s"} <= {name for name, _ in told}
    ports = {int(port) for port in re.findall(r"containerPort: (\d+)", kubernetes.read_text())}
    assert ports == {fields["port"].default}


@pytest.mark.parametrize(
    ("engine", "polling", "stopping", "alive"),
    [
        (True, None, False, True),  # it loads
        (False, None, False, False),
        (True, True, False, True),
        (True, False, False, False),
        (True, False, True, True),  # it finishes what it has
        (False, True, False, False),
    ],
)
def test_a_worker_lives_while_its_engine_and_its_polls_do(
    engine: bool, polling: bool | None, stopping: bool, alive: bool
) -> None:
    worker = Worker.__new__(Worker)  # without the process's signals and metrics
    worker.runnable = SimpleNamespace(alive=engine)  # type: ignore[assignment]
    known = None if polling is None else SimpleNamespace(polling=polling)
    worker._receiver = known  # type: ignore[assignment]
    worker._stop = threading.Event()
    if stopping:
        worker.stop()
    assert worker._alive() == alive


@pytest.mark.parametrize("cloudwatch", ["", "shop/sdxl"])
def test_a_stop_hands_back_sends_the_last_figures_and_closes(
    cloudwatch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, worker = MagicMock(), Worker.__new__(Worker)  # without the process's signals and metrics
    worker.settings = WorkerSettings(
        queue_urls="q",
        dead_letter_url="d",
        topic_arn="t",
        bucket="b",
        port=0,
        grace_s=7.0,
        cloudwatch=cloudwatch,
    )
    worker.runnable, worker._counts, worker._stop = done.runnable, MagicMock(), threading.Event()
    monkeypatch.setattr(worker, "_make_receiver", lambda limit: done.receiver)
    monkeypatch.setattr(module, "Figures", lambda *_: done.figures)
    monkeypatch.setattr(module.boto3, "client", MagicMock())
    worker.stop()
    worker.run()
    calls = [name for name, *_ in done.method_calls]
    ends = ["receiver.stop", *(["figures.send"] if cloudwatch else []), "runnable.close"]
    assert [name for name in calls if name in {*ends, "figures.send"}] == ends
    done.receiver.stop.assert_called_once_with(7.0)
    assert calls.index("runnable.start") < calls.index("receiver.start")


@pytest.mark.parametrize("traceparent", [None, W3C])
def test_an_end_is_announced_in_both_forms(traceparent: str | None) -> None:
    told: list[dict[str, Any]] = []
    sns = SimpleNamespace(publish=lambda **given: told.append(given))
    task = read(tasks.newer("told"))
    manifest = Manifest(
        id="told",
        runtime="sd15",
        status="completed",
        output_url="s3://b/o",
        traceparent=traceparent,
    )
    delivery = Delivery(None, "queue", "1", receipt="1", body="", trace={"traceparent": "sender's"})
    topic = "arn:aws:sns:eu-west-1:123456789012:results"
    Announcer(sns, topic, sagemaker=True).announce(task, manifest, delivery)
    newer, sagemaker = (json.loads(one["Message"]) for one in told)
    assert (newer["id"], sagemaker["inferenceId"]) == ("told", "told")
    assert sagemaker["awsRegion"] == "eu-west-1"
    for one in told:
        trace = one["MessageAttributes"]["traceparent"]["StringValue"]
        assert trace == (traceparent or "sender's")
