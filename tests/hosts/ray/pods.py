"""`python -m tests.hosts.ray.pods`: the RayService of overlays/ray, run with real Ray.

Head and worker get a network namespace and a /tmp of their own, as pods have, and are started with
the commands that KubeRay v1.7.0 makes of the manifest: its environment, ports, and resources. Then
it does what KubeRay does: it submits the manifest's serveConfigV2 at the dashboard with the
cluster's token, and asks every probe. The model is the embedded one, on the CPU. It needs root, ip
and unshare.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.check.manifests import OVERLAYS, ROOT, render
from deploy.check.pods import Pod, pods

TOKEN = "a-token-of-more-than-thirty-two-characters"
NETWORK = "10.99.0"
WORKERS = ("worker", "worker2")
ADDRESSES = {"head": f"{NETWORK}.2", "worker": f"{NETWORK}.3", "worker2": f"{NETWORK}.4"}
WAIT_S = 240


def main(arguments: list[str]) -> int:
    """Bring it up, and print what each question was answered."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    argparse.ArgumentParser(
        prog="python -m tests.hosts.ray.pods", description=description, epilog=rest
    ).parse_args(arguments)
    documents = render(OVERLAYS / "ray")
    (service,) = [one["spec"] for one in documents if one["kind"] == "RayService"]
    settings = {
        k: v for one in documents if one["kind"] == "ConfigMap" for k, v in one["data"].items()
    }
    settings |= {"SD_DEVICE": "cpu", "SD_JOBS_DIR": ""}
    del settings["SD_MODEL"]
    head, worker = [one for one in pods(documents) if one.name.startswith("RayService")]
    with network(), contextlib.ExitStack() as running:
        cluster = service["rayClusterConfig"]
        start = {**cluster["headGroupSpec"]["rayStartParams"], "dashboard-host": "0.0.0.0"}
        running.enter_context(node("head", head, "--head", start, settings))
        wait("head: readinessProbe and livenessProbe", probe("head", head))
        start = cluster["workerGroupSpecs"][0]["rayStartParams"]
        address = f"--address={ADDRESSES['head']}:6379"
        running.enter_context(node("worker", worker, address, start, settings))
        wait("worker: livenessProbe", "http://{worker}:52365/api/healthz")
        submit(service["serveConfigV2"])
        wait("worker: readinessProbe", probe("worker", worker))
        wait("worker: the application", "http://{worker}:8000/readyz")
        running.enter_context(node("worker2", worker, address, start, settings))
        wait("worker2: livenessProbe", "http://{worker2}:52365/api/healthz")
        url = f"http://{ADDRESSES['worker']}:8000/txt2img"
        request = {"prompt": "a red circle", "num_inference_steps": 4}
        answer = ask(url, body=request, method="POST")
        print(f"worker: POST /txt2img: {len(answer)} bytes")
        assert answer[:2] == b"\xff\xd8", "it is no JPEG"
        drained(worker)
    return 0


def drained(pod: Pod) -> None:
    """The node with both replicas ends as a pod does, under load; every request is answered."""
    load = Load(pod)
    time.sleep(10)
    command = pod.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()
    env = {**os.environ, "RAY_ADDRESS": f"{ADDRESSES['head']}:6379", "RAY_AUTH_MODE": "token"}
    env |= {"RAY_AUTH_TOKEN": TOKEN, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    # into the pod: its network, and its /tmp, where Ray has its session
    inside = ["nsenter", "--target", str(first_child("worker")), "--mount", "--pid", "--net"]
    done = subprocess.run([*inside, *command], env=env, capture_output=True, text=True, check=False)
    print(f"worker: preStop: status {done.returncode} after {time.monotonic() - began:.0f} s")
    os.kill(first_child("worker"), signal.SIGTERM)
    time.sleep(10)
    statuses = load.stop()
    print(f"drained: {len(statuses)} requests: {dict(Counter(statuses))}")
    assert set(statuses) == {200} and len(statuses) > 5


def first_child(name: str) -> int:
    """The process of `ray start` in a pod, as this machine counts it."""
    listed = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
    )
    for number in sorted(map(int, listed.stdout.split())):
        command = Path(f"/proc/{number}/cmdline").read_bytes()
        if b"ray\0start" in command and b"unshare" not in command:
            return number
    raise ProcessLookupError(name)


class Load:
    """Two clients that ask one ready worker after the other, as the load balancer does."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.statuses: list[int] = []
        self._stopped = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(2)]
        for client in self._clients:
            client.start()

    def _ask(self) -> None:
        for name in itertools.cycle(WORKERS):
            if self._stopped.is_set():
                return
            if not self._ready(name):
                time.sleep(0.2)
                continue
            body = {"prompt": "a blue square", "num_inference_steps": 2, "width": 64, "height": 64}
            try:
                ask(f"http://{ADDRESSES[name]}:8000/txt2img", body=body, method="POST")
                self.statuses.append(200)
            except urllib.error.HTTPError as error:
                print(f"{name}: {error.code} {error.read()[:200]!r}")
                self.statuses.append(error.code)
                time.sleep(1)  # what Retry-After says at least
            except OSError as error:
                print(f"{name}: {error}")
                self.statuses.append(0)

    def _ready(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            ask(probe(name, self.pod))
            return True
        return False

    def stop(self) -> list[int]:
        """Their answers' statuses."""
        self._stopped.set()
        for client in self._clients:
            client.join()
        return self.statuses


def probe(name: str, pod: Pod) -> str:
    """The address of a pod's readiness probe."""
    asked = pod.spec["containers"][0]["readinessProbe"]["httpGet"]
    return f"http://{ADDRESSES[name]}:{pod.port(asked['port']) or asked['port']}{asked['path']}"


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A bridge with a namespace each for head and worker."""
    shell(
        f"ip link add pods0 type bridge; ip addr add {NETWORK}.1/24 dev pods0; ip link set pods0 up"
    )
    for name, address in ADDRESSES.items():
        shell(
            f"ip netns add {name}; ip link add v{name} type veth peer name eth0 netns {name};"
            f"ip link set v{name} master pods0 up; ip -n {name} addr add {address}/24 dev eth0;"
            f"ip -n {name} link set eth0 up; ip -n {name} link set lo up;"
            f"ip -n {name} route add default via {NETWORK}.1"
        )
    try:
        yield
    finally:
        for name in ADDRESSES:
            shell(f"ip link del v{name}; ip netns del {name}")
        shell("ip link del pods0")


@contextlib.contextmanager
def node(
    name: str, pod: Pod, role: str, start: dict[str, str], settings: dict[str, str]
) -> Iterator[None]:
    """A pod's first container, with the command that KubeRay makes."""
    given = {**start, "metrics-export-port": "8080", "dashboard-agent-listen-port": "52365"}
    # 2 GiB in the place of the manifest's: this machine is smaller
    parameters = [f"--{key}={value}" for key, value in given.items()] + ["--memory=2147483648"]
    command = f"ray start {role} {' '.join(parameters)} --block"
    container = pod.spec["containers"][0]
    env = {one["name"]: one["value"] for one in container["env"] if "value" in one} | settings
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    env |= {"HOME": "/tmp", "HF_HOME": "/tmp/hf", "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    print(f"{name}: {command}")
    process = subprocess.Popen(
        [
            *("ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork"),
            *("--kill-child", "bash", "-c"),
            f"mount -t proc proc /proc; mount -t tmpfs tmpfs /tmp; {command}",
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        process.kill()  # unshare's child, and with it the namespace's processes, go too
        process.wait()


def submit(config: str) -> None:
    """As KubeRay does: PUT, the config as JSON, the token as a bearer's."""
    body: Any = yaml.safe_load(config)
    answer = ask(f"http://{ADDRESSES['head']}:8265/api/serve/applications/", TOKEN, body, "PUT")
    print(f"head: PUT serveConfigV2: {answer.decode() or 'accepted'}")


def ask(url: str, token: str = "", body: object = None, method: str = "GET") -> bytes:
    """An answer of status 200."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body).encode() if body is not None else None
    if data:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        found: bytes = answer.read()
    return found


def wait(what: str, url: str) -> None:
    """Until a probe is answered, without a token, as the kubelet asks."""
    began = time.monotonic()
    url = url.format(**ADDRESSES)
    while True:
        try:
            answer = ask(url)
            print(f"{what}: {url}: 200 {answer[:40]!r} after {time.monotonic() - began:.0f} s")
            return
        except (OSError, urllib.error.HTTPError) as error:
            if time.monotonic() - began > WAIT_S:
                raise TimeoutError(f"{what}: {url}: {error}") from error
            time.sleep(1)


def shell(command: str) -> None:
    subprocess.run(["bash", "-ec", command], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
