"""The settings of the front door, from its environment; Terraform writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """`FRONT_*` environment variables.

    Attributes:
        topic: ARN of the topic that tasks are published to.
        bucket: where results go.
        runtimes: runtime -> the model file it serves.
        dynamic: the runtime whose workers load whatever model a task names; empty: there is none.
        priority_keys: ids of API keys whose tasks are served first.
        link_s: how long a presigned URL works.
        daemon: `HOST:PORT` of Lambda's X-Ray daemon, which gets the spans; empty: there are none.
    """

    topic: str
    bucket: str
    runtimes: Mapping[str, str]
    dynamic: str = ""
    priority_keys: frozenset[str] = field(default_factory=frozenset)
    link_s: int = 3600
    daemon: str = ""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read them; a missing one is a KeyError naming it."""
        keys = os.environ.get("FRONT_PRIORITY_KEYS", "")
        traced = os.environ.get("FRONT_TRACING") == "true"
        return cls(
            topic=os.environ["FRONT_TOPIC_ARN"],
            bucket=os.environ["FRONT_BUCKET"],
            runtimes=json.loads(os.environ["FRONT_RUNTIMES"]),
            dynamic=os.environ.get("FRONT_DYNAMIC_RUNTIME", ""),
            priority_keys=frozenset(filter(None, keys.split(","))),
            link_s=int(os.environ.get("FRONT_LINK_S", "3600")),
            daemon=os.environ.get("AWS_XRAY_DAEMON_ADDRESS", "") if traced else "",
        )
