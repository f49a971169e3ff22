"""Tells Kubernetes how busy this pod is, so that idle pods and nodes go first.

While it works, the pod carries `karpenter.sh/do-not-disrupt` and a higher
`controller.kubernetes.io/pod-deletion-cost`. Its service account needs `patch` on pods.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import ssl
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass
class Pod:
    """This pod, by the API server's address of it.

    Attributes:
        address: `https://host:port/api/v1/namespaces/NS/pods/NAME`.
        token: file with the service account's token; it is renewed on disk.
    """

    address: str
    token: Path
    authority: Path | None = None
    _news: queue.Queue[int] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._tell, name="pod", daemon=True).start()

    @classmethod
    def here(cls) -> Pod:
        """From what Kubernetes gives every pod; `POD_NAME` by the downward API."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        namespace = (ACCOUNT / "namespace").read_text().strip()
        name = os.environ.get("POD_NAME", os.environ.get("HOSTNAME", ""))
        address = f"https://{host}:{port}/api/v1/namespaces/{namespace}/pods/{name}"
        return cls(address, ACCOUNT / "token", ACCOUNT / "ca.crt")

    def busy(self, count: int) -> None:
        """Report how many tasks are in flight; returns at once."""
        self._news.put(count)

    def _tell(self) -> None:
        reported: int | None = None
        while True:
            count = self._news.get()
            while not self._news.empty():  # only the latest counts
                count = self._news.get()
            if (count > 0) != (reported is not None and reported > 0) or reported is None:
                reported = count if self._patch(count) else None

    def _patch(self, count: int) -> bool:
        annotations = {
            "karpenter.sh/do-not-disrupt": "true" if count else None,
            "controller.kubernetes.io/pod-deletion-cost": "1000" if count else "0",
        }
        request = urllib.request.Request(
            self.address,
            method="PATCH",
            data=json.dumps({"metadata": {"annotations": annotations}}).encode(),
            headers={
                "content-type": "application/merge-patch+json",
                "authorization": f"Bearer {self.token.read_text().strip()}",
            },
        )
        try:
            tls = ssl.create_default_context(cafile=self.authority) if self.authority else None
            with urllib.request.urlopen(request, timeout=5, context=tls):
                return True
        except OSError as error:
            logger.warning("the pod's annotations could not be set: %s", error)
            return False
