"""`python -m hosts.ray`: the Ray Serve application on this machine, until SIGTERM or Ctrl-C.

As `serve run`, with a stop that finishes what was accepted, and with Ray's own ports on the
loopback interface behind Ray's token.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from runnables.errors import ConfigurationError
from runnables.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
STARTS = 3  # of Ray, at most
END_S = 30  # beyond SD_DRAIN_S; what has not ended then is lost
#: before Ray is imported: it reads them then
DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine starts slowly
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "hosts.ray.proxy.middlewares",
    "FORWARDED_ALLOW_IPS": "",  # uvicorn's own; SD_TRUSTED_PROXIES alone decides
    "PYTHONPATH": str(ROOT),
}


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal. Returns the exit code: 1 where the application cannot be deployed."""
    chosen = _parser().parse_args(arguments)
    try:
        stop_s = Settings.from_environment().drain_s + END_S
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        return 1
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    stop = threading.Event()
    config = yaml.safe_load(chosen.config.read_text())
    config.setdefault("http_options", {}).update(host=chosen.host, port=chosen.port)
    _start_ray(chosen)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return _serve(config, stop, stop_s)


def _start_ray(chosen: argparse.Namespace) -> None:
    """Start Ray, again where it was too slow: Ray itself waits 30 s, which no setting changes."""
    before = set(psutil.Process().children(recursive=True))
    for attempt in range(1, STARTS + 1):
        try:
            _init_ray(chosen)
            return
        except Exception as error:  # Ray raises no other class
            if "timed out during startup" not in str(error) or attempt == STARTS:
                raise
        print("Ray was not up after 30 seconds and is started again", file=sys.stderr)
        for process in set(psutil.Process().children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _init_ray(chosen: argparse.Namespace) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=chosen.cpus,
        num_gpus=chosen.gpus,
        resources={"neuron_cores": chosen.neuron_cores} if chosen.neuron_cores else None,
        include_dashboard=chosen.dashboard,
        _node_ip_address="127.0.0.1",
    )


def _serve(config: dict[str, object], stop: threading.Event, stop_s: float) -> int:
    import ray
    from ray import serve
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(config)
    client = serve_start(http_options=schema.http_options.model_dump())
    try:
        client.deploy_apps(schema, _blocking=False)
        while not stop.wait(1):
            failed = [one for one in serve.status().applications.values() if _is_lost(one)]
            if failed:
                print(failed[0].message, file=sys.stderr)
                return 1
        return 0
    finally:
        _finish(stop_s)
        serve.shutdown()
        ray.shutdown()


def _finish(timeout_s: float) -> None:
    """Finish and send what was accepted: Serve's own shutdown cuts the connections it serves."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    for name, one in serve.status().applications.items():
        if one.status == "RUNNING":
            try:
                serve.get_app_handle(name).stop.remote().result(timeout_s=timeout_s)
                serve.delete(name)
            except (RayServeException, RayError, TimeoutError) as error:
                print(f"{name} could not finish its requests: {error}", file=sys.stderr)


def _is_lost(application: object) -> bool:
    return getattr(application, "status", None) == "DEPLOY_FAILED"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hosts.ray", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--cpus", type=int, help="CPUs that Ray may use; default: all")
    parser.add_argument("--gpus", type=int, help="GPUs that it may use; default: those it finds")
    parser.add_argument("--neuron-cores", type=int, help="NeuronCores; default: those it finds")
    parser.add_argument("--dashboard", action="store_true", help="Ray's, on 127.0.0.1:8265")
    return parser


if __name__ == "__main__":
    sys.exit(main())
