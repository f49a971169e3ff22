"""`python -m benchmarks.ray`: a request through BentoML and through Ray Serve, side by side.

Rounds alternate between the hosts, both of them up; printed are medians and their ratio. The
request is one step of the embedded model, so that what a host adds shows.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import yaml

from benchmarks.host import ROOT, free_port, served
from benchmarks.load import load
from runnables.settings import EMBEDDED_MODEL

CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
BODY = {"prompt": "sea", "num_inference_steps": 1, "guidance_scale": 1}


@contextmanager
def on_ray(drawers: int) -> Iterator[str]:
    """The address of a Ray Serve application with so many drawers."""
    port = free_port()
    with TemporaryDirectory() as folder:
        config = _config(Path(folder), drawers)
        command = [sys.executable, "-m", "deploy.ray", config, "--port", str(port), "--cpus", "8"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "SD_THREADS": "1", "SD_JOBS_DIR": f"{folder}/jobs"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            process.wait(120)
            for child in psutil.wait_procs(children, timeout=10)[1]:
                child.kill()


def _config(folder: Path, drawers: int) -> str:
    content = yaml.safe_load(CONFIG.read_text())
    for deployment in content["applications"][0]["deployments"]:
        scaling = deployment.get("autoscaling_config", {})
        scaling |= {"min_replicas": drawers, "max_replicas": drawers} if scaling else {}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("Ray ended before it was ready")


def compare(hosts: dict[str, str], clients: int, rounds: int, requests: int) -> Iterator[str]:
    """A line a host: median seconds and images a second, and ratios to the first host."""
    seconds: dict[str, list[float]] = {name: [] for name in hosts}
    rates: dict[str, list[float]] = {name: [] for name in hosts}
    for number in range(rounds + 1):
        for name, url in hosts.items():
            started = time.monotonic()
            with load(url, clients, BODY) as running:
                running.wait_for(requests, timeout=300)
            if number:  # the first round warms up
                good = [one.seconds for one in running.answers if one.status == 200]
                seconds[name].append(statistics.median(good))
                rates[name].append(len(good) / (time.monotonic() - started))
    base = next(iter(hosts))
    for name in hosts:
        slower = statistics.median(b / a for a, b in zip(seconds[base], seconds[name], strict=True))
        faster = statistics.median(b / a for a, b in zip(rates[base], rates[name], strict=True))
        yield (
            f"| {clients} | {name} | {1000 * statistics.median(seconds[name]):.1f} | {slower:.2f} "
            f"| {statistics.median(rates[name]):.1f} | {faster:.2f} |"
        )


def _tell_load() -> None:
    """What else the machine does decides what these figures are worth."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=48, help="images a round")
    parser.add_argument("--drawers", type=int, nargs="*", default=[1])
    chosen = parser.parse_args()
    os.environ["SD_THREADS"] = "1"
    with ExitStack() as stack:
        hosts = {"BentoML": stack.enter_context(served(EMBEDDED_MODEL))[0]}
        for drawers in chosen.drawers:
            hosts[f"Ray, {drawers} drawer{'s'[: drawers > 1]}"] = stack.enter_context(
                on_ray(drawers)
            )
        _tell_load()
        for clients in (1, 16):
            print("\n| clients | host | median ms | ratio | images/s | ratio |")
            print("|---|---|---|---|---|---|")
            for line in compare(hosts, clients, chosen.rounds, chosen.requests):
                print(line, flush=True)
            _tell_load()


if __name__ == "__main__":
    main()
