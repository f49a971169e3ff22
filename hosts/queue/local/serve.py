"""`make queue-serve`: the queue on this machine, kept running for curl or a load test.

As in `make queue-demo`: a stand-in for AWS, the topology of `deploy/queue/terraform`, the front
door on a port of the loopback interface, workers with the embedded model (`--set SD_MODEL=...`
takes another). SIGTERM or Ctrl-C ends all of it. With OTEL_EXPORTER_OTLP_ENDPOINT the front door
and the workers export their spans.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from api.http import tracing
from hosts.queue.front.handler import SERVICE
from hosts.queue.local import stand_in
from hosts.queue.local.system import KEY, RUNTIMES, system


def main() -> None:
    """Serve until a signal ends it."""
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    tracing.configure(service=SERVICE)
    print(f"starting {arguments.aws}, the topology, the front door, workers ...", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.logs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        given = arguments.aws, folder, dict(arguments.set), arguments.workers, arguments.port
        with system(*given) as (client, _, _):
            print(
                f"{client.url} takes tasks: x-api-key {KEY}, runtime {next(iter(RUNTIMES))}",
                flush=True,
            )
            signal.pause()


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind from wherever we are; the next signal must not disturb that."""
    for known in (signal.SIGTERM, signal.SIGINT):
        signal.signal(known, signal.SIG_IGN)
    sys.exit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hosts.queue.local.serve", description=__doc__)
    parser.add_argument(
        "--aws", choices=stand_in.KINDS, default=stand_in.KINDS[0], help="the stand-in"
    )
    parser.add_argument("--port", type=int, default=3001, help="0: any that is free")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="keep the logs in this folder")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="an SD_* or WORKER_* variable of the workers",
    )
    return parser.parse_args()


def _setting(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name.startswith(("SD_", "WORKER_")):
        raise argparse.ArgumentTypeError(f"{given!r} is not SD_NAME=VALUE or WORKER_NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
