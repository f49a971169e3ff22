"""Spot interruption notices from the EC2 instance metadata service (IMDSv2).

AWS gives two minutes between the notice and the end. Where Karpenter or the AWS node termination
handler drains nodes, SIGTERM comes by itself; this is for instances without one.
"""

from __future__ import annotations

import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

logger = logging.getLogger(__name__)

EVERY_S = 5.0  # as AWS advises
DEFAULT = "http://169.254.169.254"


def watch(stop: Callable[[], None], every_s: float = EVERY_S) -> None:
    """Call `stop` once a notice appears; on a daemon thread."""
    address = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", DEFAULT).rstrip("/")

    def look() -> None:
        sleep = threading.Event()
        while not noticed(address):
            sleep.wait(every_s)
        logger.warning("spot interruption notice: stopping")
        stop()

    threading.Thread(target=look, name="spot", daemon=True).start()


def noticed(address: str) -> bool:
    """Return whether this instance is about to be taken away."""
    try:
        request = urllib.request.Request(
            f"{address}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        with urllib.request.urlopen(request, timeout=2) as answer:
            token = answer.read().decode()
        notice = urllib.request.Request(
            f"{address}/latest/meta-data/spot/instance-action",
            headers={"X-aws-ec2-metadata-token": token},
        )
        with urllib.request.urlopen(notice, timeout=2):
            return True
    except (urllib.error.URLError, OSError):  # 404: no notice
        return False
