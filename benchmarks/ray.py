"""`python -m benchmarks.ray` compares a request through BentoML with one through Ray Serve.

Rounds alternate between the hosts, which all run; the report has medians and their ratios. Each
request is one step of the embedded model, so that a host's own share is visible. On a machine with
other work compare CPU time: Linux shares cores between sessions, and each Ray replica is one.
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
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import yaml

from benchmarks.host import ROOT, free_port, served, wait_ready
from benchmarks.load import load
from runnables.settings import EMBEDDED_MODEL

CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
BODY = {"prompt": "sea", "num_inference_steps": 1, "guidance_scale": 1}


@contextmanager
def on_ray(replicas: int) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of a Ray Serve application with so many replicas, and its process."""
    port = free_port()
    with TemporaryDirectory() as folder:
        config = _config(Path(folder), replicas)
        command = [sys.executable, "-m", "hosts.ray", config, "--port", str(port), "--cpus", "8"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "SD_THREADS": "1", "SD_JOBS_DIR": f"{folder}/jobs"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            process.wait(120)
            for child in psutil.wait_procs(children, timeout=10)[1]:
                child.kill()


def _config(folder: Path, replicas: int) -> str:
    content = yaml.safe_load(CONFIG.read_text())
    for deployment in content["applications"][0]["deployments"]:
        scaling = deployment.get("autoscaling_config", {})
        scaling |= {"min_replicas": replicas, "max_replicas": replicas} if scaling else {}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@dataclass
class Host:
    """A host has an address, processes, and per round one figure of each kind."""

    url: str
    process: psutil.Process
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def spent(self) -> float:
        """Return the CPU seconds of all its processes so far; other work adds little to them."""
        alive = [self.process, *self.process.children(recursive=True)]
        times = [one.cpu_times() for one in alive]
        return float(sum(one.user + one.system for one in times))

    def round(self, clients: int, requests: int) -> None:
        """Request so many images."""
        started, before = time.monotonic(), self.spent()
        with load(self.url, clients, BODY) as running:
            running.wait_for(requests, timeout=300)
        good = [one.seconds for one in running.answers if one.status == 200]
        self.seconds.append(statistics.median(good))
        self.rates.append(len(good) / (time.monotonic() - started))
        self.cpu.append((self.spent() - before) / len(good))


def compare(hosts: dict[str, Host], clients: int, rounds: int, requests: int) -> Iterator[str]:
    """Yield one line per host: medians of the rounds, each with its ratio to the first host's."""
    for host in hosts.values():
        host.seconds, host.rates, host.cpu = [], [], []
    for _ in range(rounds + 1):
        for host in hosts.values():
            host.round(clients, requests)
    base = next(iter(hosts.values()))
    for name, host in hosts.items():
        seconds, slower = _against(base.seconds, host.seconds)
        rate, faster = _against(base.rates, host.rates)
        cpu, dearer = _against(base.cpu, host.cpu)
        yield (
            f"| {clients} | {name} | {1000 * seconds:.1f} | {slower:.2f} | {rate:.1f} "
            f"| {faster:.2f} | {1000 * cpu:.0f} | {dearer:.2f} |"
        )


def _against(base: list[float], own: list[float]) -> tuple[float, float]:
    """Return the median, and the median of the ratios; the first round warms up."""
    ratios = [b / a for a, b in zip(base[1:], own[1:], strict=True)]
    return statistics.median(own[1:]), statistics.median(ratios)


def _print_load() -> None:
    """Print the machine's load, because other work makes these figures less reliable."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=48, help="images per round")
    parser.add_argument("--replicas", type=int, nargs="*", default=[1])
    chosen = parser.parse_args()
    os.environ["SD_THREADS"] = "1"
    with ExitStack() as stack:
        hosts = {"BentoML": Host(*stack.enter_context(served(EMBEDDED_MODEL)))}
        for replicas in chosen.replicas:
            name = f"Ray, {replicas} replica{'s'[: replicas > 1]}"
            hosts[name] = Host(*stack.enter_context(on_ray(replicas)))
        _print_load()
        for clients in (1, 16):
            print("\n| clients | host | median ms | ratio | images/s | ratio | CPU ms | ratio |")
            print("|---|---|---|---|---|---|---|---|")
            for line in compare(hosts, clients, chosen.rounds, chosen.requests):
                print(line, flush=True)
            _print_load()


if __name__ == "__main__":
    main()
