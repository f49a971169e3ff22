"""`python -m benchmarks` compares the engine with bare diffusers and static batches."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import serving
from benchmarks.arms import ARMS
from runnables.settings import EMBEDDED_MODEL


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--requests", type=int, default=48, help="of each workload and round")
    parser.add_argument("--rounds", type=int, default=5, help="in each of them all arms run")
    parser.add_argument("--arrivals", type=int, default=150, help="requests at random times")
    parser.add_argument(
        "--loads",
        type=float,
        nargs="*",
        default=[0.7, 1.0, 1.2, 1.5],
        help="Poisson arrival rates, as shares of what one-at-a-time can serve",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="one more arm: the engine in bfloat16, for CPUs with AVX512-BF16 or AMX",
    )
    arguments = parser.parse_args()
    arms = [name for name in ARMS if arguments.bf16 or not name.endswith("bf16")]
    lines = serving.run(
        arguments.model,
        requests=arguments.requests,
        arrivals=arguments.arrivals,
        loads=tuple(arguments.loads),
        rounds=arguments.rounds,
        arms=arms,
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
