"""`python -m deploy.check --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from deploy.check.ready import Ready, ready
from deploy.check.stand_in import stand_in
from deploy.check.steps import STEPS, Deployment, Report
from deploy.check.terraform import Failed


def main() -> int:
    """Check the configurations asked for; 1 if one fails or there is none."""
    options = _options()
    found = ready(options.operator, options.config)
    if not found:
        print("no ready configuration has that name", file=sys.stderr)
        return 1
    # a stand-in each, so that what is left over can be told apart; most of the time is waiting
    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(lambda one: _check(one, options.until, options.tests), found))
    failed = [one for one in reports if one is None]
    if options.report:
        options.report.write_text(json.dumps([asdict(one) for one in reports if one], indent=1))
    print(
        f"{len(found) - len(failed)} of {len(found)} configurations passed, up to {options.until}"
    )
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.check", description=__doc__)
    parser.add_argument("--operator", help="only configurations of this operator, like aws-ec2")
    parser.add_argument("--config", help="only configurations whose path holds this text")
    parser.add_argument("--until", choices=STEPS, default="apply", help="the last step")
    parser.add_argument("--jobs", type=int, default=3, help="configurations at a time")
    parser.add_argument(
        "--no-tests", dest="tests", action="store_false", help="leave out the step `test`"
    )
    parser.add_argument("--report", type=Path, help="write the reports here, as JSON")
    return parser.parse_args()


def _check(one: Ready, until: str, tests: bool) -> Report | None:
    began = time.monotonic()
    aws_needed = STEPS.index(until) >= STEPS.index("plan")
    stand = stand_in() if aws_needed else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="deploy-check-") as folder, stand as aws:
        try:
            report = Deployment(one, Path(folder), aws).check(until, tests)
        except Failed as error:
            print(f"FAILED {one.label}: {error}", file=sys.stderr, flush=True)
            return None
    print(f"{_line(report)}, {time.monotonic() - began:.0f} s", flush=True)
    return report


def _line(report: Report) -> str:
    parts = [f"ok {report.label:28}"]
    parts += [f"{report.tests} tests"] if report.tests else []
    parts += [f"{report.planned} planned"] if report.planned else []
    if report.created:
        parts.append(f"{report.created} created, {report.destroyed} destroyed, 0 left")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
