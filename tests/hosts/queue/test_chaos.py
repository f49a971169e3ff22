"""Nothing is lost: workers are killed, AWS's calls fail, poison is planted.

`LONG=1 .venv/bin/python -m pytest tests/hosts/queue/test_chaos.py -s` is the full run.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosts.queue.local import stand_in, workers
from tests.hosts.queue import chaos, faults
from tests.long import LONG

WORKERS = 3 if LONG else 2
COUNT = 1000 if LONG else 60


def test_every_task_ends_once(
    aws: Any, endpoint: str, make_system: Any, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    topology, front = make_system()
    ends = [signal.SIGKILL, signal.SIGTERM] * (5 if LONG else 1)
    sent = [(body, "") for body in chaos.bodies(COUNT)]
    with faults.proxy(endpoint, 0.05, {"s3", "sns"}) as (address, account):
        settings = {
            **stand_in.environment(address),
            **workers.settings(topology, "sd15"),
            "SD_MODEL": str(tiny_model("sd1")),
        }
        crew = chaos.Crew([settings] * WORKERS, tmp_path / "log")
        report = chaos.run(aws, topology, front, crew, sent, ends, limit_s=600 + 2 * COUNT)
    print(f"\n{report}\n{dict(account.failed)} of {dict(account.seen)} calls failed")
    log = crew.log.read_text()[-4000:]
    assert report.kills == report.terms == len(ends) // 2
    assert min(account.failed["s3"], account.failed["sns"]) > 0
    assert report.results == {1: COUNT}, log
    assert report.status == {"completed": COUNT}, log
    assert report.missing_images == report.unannounced == 0, log
    assert report.buried == dict.fromkeys(chaos.POISON, 1), log
