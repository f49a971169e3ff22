"""`python -m benchmarks`: the engine against bare diffusers and static batches, in one run."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import serving
from runnables.settings import EMBEDDED_MODEL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--requests", type=int, default=60, help="images a workload")
    parser.add_argument(
        "--loads",
        type=float,
        nargs="*",
        default=[0.7, 1.2],
        help="Poisson arrival rates, as shares of what one-at-a-time can serve",
    )
    arguments = parser.parse_args()
    loads = tuple(arguments.loads)
    for line in serving.run(arguments.model, requests=arguments.requests, loads=loads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
