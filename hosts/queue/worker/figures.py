"""The worker's and its engine's figures in CloudWatch, for the dashboard of deploy/queue/terraform.

They are samples of what `/metrics` shows: once a minute, so that the sum over a minute is that of
all workers.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from prometheus_client import REGISTRY, CollectorRegistry

logger = logging.getLogger(__name__)

NAMESPACE = "StableDiffusion"
EVERY_S = 60
#: name in CloudWatch -> sample of /metrics, as it is
GAUGES = {
    "Waiting": "sd_queue_depth",
    "Active": "sd_active_rows",
    "InFlight": "worker_tasks_in_flight",
}
#: the same, as what was added since it was sent last
COUNTERS = {"Images": "sd_images_total"}


class Figures:
    """Sends the figures of one worker.

    Args:
        cloudwatch: the client.
        names: DEPLOYMENT/RUNTIME, the metrics' dimensions.
    """

    def __init__(self, cloudwatch: Any, names: str, registry: CollectorRegistry = REGISTRY) -> None:
        deployment, _, runtime = names.partition("/")
        self._cloudwatch, self._registry = cloudwatch, registry
        self._dimensions = [
            {"Name": "Deployment", "Value": deployment},
            {"Name": "Runtime", "Value": runtime},
        ]
        self._sent = dict.fromkeys(COUNTERS, 0.0)

    def watch(self, stop: threading.Event) -> None:
        """Send them once a minute from now on, on a daemon thread, until `stop`."""

        def run() -> None:
            self.send()
            while not stop.wait(EVERY_S):
                self.send()

        threading.Thread(target=run, name="figures", daemon=True).start()

    def send(self) -> None:
        """Send them once; where CloudWatch fails, the counters wait for the next time."""
        totals = {name: self._total(sample) for name, sample in COUNTERS.items()}
        values = {name: self._total(sample) for name, sample in GAUGES.items()}
        values |= {name: total - self._sent[name] for name, total in totals.items()}
        data = [
            {"MetricName": name, "Dimensions": self._dimensions, "Value": value, "Unit": "Count"}
            for name, value in values.items()
        ]
        try:
            self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
        except (BotoCoreError, ClientError) as error:
            logger.warning("CloudWatch did not take the figures: %s", error)
        else:
            self._sent = totals

    def _total(self, name: str) -> float:
        """Return a sample's value, summed over its labels."""
        samples = (one for family in self._registry.collect() for one in family.samples)
        return sum(sample.value for sample in samples if sample.name == name)
