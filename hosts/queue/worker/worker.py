"""The worker process: one engine, and as many tasks as fill it."""

from __future__ import annotations

import logging
import signal
import threading

import boto3
from botocore.config import Config

from api.http import tracing
from hosts.host import begin
from hosts.queue.worker import health, spot
from hosts.queue.worker.announce import Announcer
from hosts.queue.worker.figures import Figures
from hosts.queue.worker.inputs import Reader
from hosts.queue.worker.lifecycle import Lifecycle
from hosts.queue.worker.metrics import Metrics
from hosts.queue.worker.pod import Pod
from hosts.queue.worker.receiver import Receiver
from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.store import Store
from runnables import metrics as engine_metrics
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

logger = logging.getLogger(__name__)

SERVICE = "stable_diffusion_worker"  # in traces


class Worker:
    """Made on the main thread, as it takes SIGTERM and SIGINT."""

    def __init__(self, settings: WorkerSettings, engine: Settings) -> None:
        self.settings = settings
        self._stop = threading.Event()
        self._receiver: Receiver | None = None
        begin(engine, service=SERVICE)
        self._counts = engine_metrics.Metrics()
        self.runnable = StableDiffusionRunnable(engine, observe=self._counts.observe)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def stop(self) -> None:
        """Begin an orderly stop; `run` returns when it is done."""
        self._stop.set()

    def _signalled(self, number: int, frame: object) -> None:
        self.stop()
        if self._receiver is None:  # still loading: there is nothing to hand back
            raise SystemExit(0)

    @property
    def ready(self) -> bool:
        """The model is loaded and every queue is being polled."""
        return self._receiver is not None and self._receiver.polling and self.runnable.ready

    def run(self) -> None:
        """Load the model, work until `stop`, hand back what is unfinished.

        Raises:
            ConfigurationError: the model cannot be loaded.
        """
        settings = self.settings
        if settings.port:
            health.serve(settings.host, settings.port, lambda: self.ready, self._alive)
        if settings.spot_notice:
            spot.watch(self.stop)
        runnable = self.runnable
        runnable.start()
        self._counts.started(runnable.describe())
        self._counts.queue.set_function(lambda: runnable.load().waiting)
        self._counts.active.set_function(lambda: runnable.load().active)
        limit = settings.in_flight or runnable.capacity
        self._receiver = receiver = self._make_receiver(limit)
        receiver.start()
        figures = None
        if settings.cloudwatch:
            figures = Figures(boto3.client("cloudwatch"), settings.cloudwatch)
            figures.watch(self._stop)
        logger.info("ready: %s, up to %d tasks at once", runnable.describe()["name"], limit)
        self._stop.wait()
        logger.info("stopping: %d tasks in flight", len(receiver.in_flight))
        receiver.stop(settings.grace_s)
        if figures:
            figures.send()  # what was generated since the last minute
        self.runnable.close()
        tracing.flush()
        logger.info("stopped")

    def _alive(self) -> bool:
        polling = self._receiver is None or self._stop.is_set() or self._receiver.polling
        return polling and self.runnable.alive

    def _make_receiver(self, limit: int) -> Receiver:
        settings = self.settings
        calls = Config(max_pool_connections=limit + settings.reserve + 8)
        sqs, s3, sns = (boto3.client(name, config=calls) for name in ("sqs", "s3", "sns"))
        metrics, pod = Metrics(engine=self._counts), Pod.here() if settings.pod_cost else None
        lifecycle = Lifecycle(
            settings,
            self.runnable,
            Store(s3, settings.bucket),
            Announcer(sns, settings.topic_arn, sagemaker=settings.sagemaker),
            Reader(s3, settings.buckets, self.runnable.settings),
            metrics,
        )

        def changed(count: int) -> None:
            metrics.in_flight.set(count)
            if pod:
                pod.busy(count)

        return Receiver(sqs, settings, lifecycle, limit, changed)
