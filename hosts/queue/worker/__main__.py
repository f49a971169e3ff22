"""`python -m hosts.queue.worker`: works on tasks from SQS until SIGTERM."""

from __future__ import annotations

import argparse
import sys

from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.worker import Worker
from runnables.errors import ConfigurationError
from runnables.settings import Settings


def main() -> int:
    """Exit status: 0 after an orderly stop, 1 where the settings or the model are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m hosts.queue.worker",
        description=__doc__,
        epilog=WorkerSettings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        worker = Worker(WorkerSettings.from_environment(), Settings.from_environment())
        worker.run()
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
