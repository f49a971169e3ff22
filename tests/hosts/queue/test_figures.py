"""What a worker tells CloudWatch, and that the dashboard asks for nothing else."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from prometheus_client import CollectorRegistry, Counter, Gauge

from hosts.queue.worker import figures
from hosts.queue.worker.figures import Figures
from tests.hosts.queue.test_worker import until

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy" / "queue" / "terraform" / "dashboard.tf"


class CloudWatch:
    """Keeps what it is told, unless it is broken."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.broken = False

    def put_metric_data(self, **given: Any) -> None:
        if self.broken:
            raise EndpointConnectionError(endpoint_url="cloudwatch")
        self.told.append(given)


def test_gauges_as_they_are_and_counters_since_the_last_time() -> None:
    registry, cloudwatch = CollectorRegistry(), CloudWatch()
    gauges = {
        name: Gauge(sample, "x", registry=registry) for name, sample in figures.GAUGES.items()
    }
    images = Counter("sd_images", "x", ["model"], registry=registry)
    one = Figures(cloudwatch, "shop/sdxl", registry)

    def sent() -> dict[str, float]:
        one.send()
        return {each["MetricName"]: each["Value"] for each in cloudwatch.told[-1]["MetricData"]}

    gauges["Waiting"].set(3)
    images.labels("a").inc(2)
    images.labels("b").inc(5)
    assert sent() == {"Waiting": 3, "Active": 0, "InFlight": 0, "Images": 7}
    names = {"Deployment": "shop", "Runtime": "sdxl"}
    for each in cloudwatch.told[-1]["MetricData"]:
        assert {part["Name"]: part["Value"] for part in each["Dimensions"]} == names
    images.labels("a").inc()
    cloudwatch.broken = True
    one.send()
    cloudwatch.broken = False
    images.labels("a").inc()
    assert sent()["Images"] == 2, "what could not be sent was sent later"
    assert sent()["Images"] == 0


def test_they_are_sent_until_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    cloudwatch, stop = CloudWatch(), threading.Event()
    before = {*threading.enumerate()}
    monkeypatch.setattr(figures, "EVERY_S", 0.01)
    Figures(cloudwatch, "shop/sdxl", CollectorRegistry()).watch(stop)
    (thread,) = {*threading.enumerate()} - before
    until(lambda: len(cloudwatch.told) > 2)
    stop.set()
    thread.join(300)
    assert not thread.is_alive()


def test_the_dashboard_asks_for_what_workers_send() -> None:
    text = DASHBOARD.read_text()
    assert f'concat(["{figures.NAMESPACE}", metric]' in text
    asked = set(re.findall(r'^ +"(?:Engine|Worker): [^"]+" += "(\w+)"', text, re.M))
    assert asked == {*figures.GAUGES, *figures.COUNTERS}
