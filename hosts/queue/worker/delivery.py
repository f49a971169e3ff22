"""One delivery of a queue message: its text, how often it came, and ways to end it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from api.http.tracing import XRAY

logger = logging.getLogger(__name__)

MAX_DELAY_S = 900


@dataclass(eq=False)
class Delivery:
    """A message that is ours until its visibility timeout.

    Attributes:
        received: how many times it has been delivered, this one included.
        sent: seconds since 1970.
        trace: trace context by header name.
        urgent: from a queue that goes before others.
    """

    sqs: Any
    queue: str
    id: str
    receipt: str
    body: str
    received: int = 1
    sent: float = 0.0
    trace: Mapping[str, str] = field(default_factory=dict)
    urgent: bool = False
    settled: bool = False

    @classmethod
    def of(cls, sqs: Any, queue: str, message: Mapping[str, Any], urgent: bool) -> Delivery:
        """From SQS's own message."""
        system = message.get("Attributes", {})
        sent = {
            name: attribute.get("StringValue", "")
            for name, attribute in message.get("MessageAttributes", {}).items()
        }
        trace = {name: sent[name] for name in ("traceparent", XRAY) if name in sent}
        if "AWSTraceHeader" in system:
            trace[XRAY] = system["AWSTraceHeader"]
        return cls(
            sqs=sqs,
            queue=queue,
            id=message["MessageId"],
            receipt=message["ReceiptHandle"],
            body=message["Body"],
            received=int(system.get("ApproximateReceiveCount", 1)),
            sent=int(system.get("SentTimestamp", 0)) / 1000,
            trace=trace,
            urgent=urgent,
        )

    def delete(self) -> None:
        """Done with: never deliver it again."""
        self.settled = True
        self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=self.receipt)

    def extend(self, seconds: int) -> None:
        """Keep it ours for so long from now."""
        if not self.settled:
            self._hide(seconds)

    def release(self, delay: float = 0) -> None:
        """Hand it back, to be delivered after the delay. A failure is not one: it times out."""
        if self.settled:
            return
        self.settled = True
        with contextlib.suppress(BotoCoreError, ClientError):
            self._hide(min(round(delay), MAX_DELAY_S))

    def bury(self, dead_letters: str, reason: str) -> None:
        """Move it to the dead-letter queue, with its reason and where it came from."""
        about = {"reason": reason[:256] or "-", "message_id": self.id, "queue": self.queue}
        self.sqs.send_message(
            QueueUrl=dead_letters,
            MessageBody=self.body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in {**about, **self.trace}.items()
            },
        )
        self.delete()

    def _hide(self, seconds: int) -> None:
        self.sqs.change_message_visibility(
            QueueUrl=self.queue, ReceiptHandle=self.receipt, VisibilityTimeout=seconds
        )
