"""`python -m tests.hosts.ray.nodes`: two Ray nodes on this machine, one removed under load.

Prints the answers by status; exits with 1 where one was neither an image nor 503.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import yaml

from benchmarks.host import free_port
from benchmarks.load import load
from hosts.ray.__main__ import CONFIG, DEFAULTS


def main() -> int:
    """Two nodes with a replica each; the second, on which Ray may have put the ingress, is lost."""
    argparse.ArgumentParser(
        prog="python -m tests.hosts.ray.nodes", description=__doc__
    ).parse_args()
    os.environ |= {**DEFAULTS, "RAY_AUTH_MODE": "disabled", "SD_THREADS": "1"}
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "dashboard_port": free_port()}
    )
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, namespace="serve")
    schema = ServeDeploySchema.model_validate(_config())
    client = serve_start(http_options=schema.http_options.model_dump())
    client.deploy_apps(schema, _blocking=False)
    url = f"http://127.0.0.1:{schema.http_options.port}"
    with load(url, 4) as running:
        running.wait_for(4, drawn=True)
        del running.answers[:]
        running.wait_for(12)
        application = client.get_serve_details()["applications"]["stable-diffusion"]
        ingress = application["deployments"]["ingress"]["replicas"][0]["node_id"] == second.node_id
        cluster.remove_node(second, allow_graceful=False)
        lost = time.monotonic()
        running.wait_for(24, drawn=True)
    after = [one for one in running.answers if one.sent > lost and one.status == 200]
    print(f"a node with a replica{' and the ingress' if ingress else ''} was lost")
    print("by status:", running.statuses(), f"; images begun after the loss: {len(after)}")
    print(f"first of them {after[0].sent + after[0].seconds - lost:.1f} s after it")
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
    return 0 if set(running.statuses()) <= {200, 503} else 1


def _config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = free_port()
    config["proxy_location"] = "HeadOnly"
    for deployment in config["applications"][0]["deployments"]:
        if "autoscaling_config" in deployment:
            deployment["autoscaling_config"] |= {"min_replicas": 2, "max_replicas": 2}
            deployment["max_replicas_per_node"] = 1
    return config


if __name__ == "__main__":
    sys.exit(main())
