"""This second locust file ends a test's load once END_AFTER requests have been made."""

from __future__ import annotations

import itertools
import os
from typing import Any

import gevent
from locust import events

LIMIT = int(os.environ["END_AFTER"])


@events.init.add_listener
def watch(environment: Any, **_: Any) -> None:
    """Count requests, and quit from outside the user that made the last one."""
    numbers = itertools.count(1)

    def count(**_: Any) -> None:
        if next(numbers) == LIMIT:
            gevent.spawn(environment.runner.quit)

    environment.events.request.add_listener(count)
