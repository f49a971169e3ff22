"""Replicas come and go with the load, from one and from none; a stop finishes what was accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.load import load
from tests.hosts.ray.conftest import config, serve_ray, stop
from tests.hosts.ray.test_heal import replicas, wait_for
from tests.long import long
from tests.service.server import Server

pytestmark = long  # it waits for Ray to scale
#: Ray looks at the load every second, and acts at once
SCALING = {
    "target_ongoing_requests": 2,
    "upscale_delay_s": 0,
    "downscale_delay_s": 3,
    "downscale_to_zero_delay_s": 3,
    "metrics_interval_s": 1,
    "look_back_period_s": 2,
}
#: some replicas have work for a while
BODY = {"prompt": "sea", "num_inference_steps": 100, "num_images_per_prompt": 4}
BODY |= {"output_format": "json"}
WAIT_S = 240


@contextmanager
def scaled(folder: Path, model: Path, least: int, most: int) -> Iterator[Server]:
    scaling = {**SCALING, "min_replicas": least, "max_replicas": most}
    path = config(folder, least, scaling=scaling, SD_MODEL=str(model))
    with serve_ray(folder, str(path), "--cpus", str(most)) as server:
        yield server


def test_from_one_to_three_and_back_and_a_stop_finishes_what_was_accepted(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    with scaled(tmp_path, tiny_model("sd1"), 1, 3) as server:
        assert len(replicas(server, "replica")) == 1
        with load(server.url, 12, BODY) as running:
            print(f"to three in {wait_for(server, 'replica', 3, WAIT_S):.1f} s")
            running.wait_for(12)
        print(f"back to one in {wait_for(server, 'replica', 1, WAIT_S):.1f} s;", running.statuses())
        assert set(running.statuses()) == {200}, running.answers

        with ThreadPoolExecutor(4) as clients:
            sent = [
                clients.submit(httpx.post, f"{server.url}/txt2img", json=BODY, timeout=300)
                for _ in range(4)
            ]
            while "sd_active_rows 16.0" not in httpx.get(f"{server.url}/metrics").text:
                time.sleep(0.1)
            assert stop(server) == 0, server.log.read_text()[-2000:]
            assert [one.result().status_code for one in sent] == [200] * 4


def test_from_none_the_first_request_waits_for_the_model(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    with scaled(tmp_path, tiny_model("sd1"), 0, 1) as server:
        print(f"to none in {wait_for(server, 'replica', 0, WAIT_S):.1f} s")
        assert httpx.get(f"{server.url}/readyz", timeout=300).status_code == 200
        assert httpx.get(f"{server.url}/models", timeout=300).json()[0]["name"] == "sd1"
        answer = httpx.post(f"{server.url}/txt2img", json={"prompt": "sea"}, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
        print(f"the first image after {answer.elapsed.total_seconds():.1f} s")
        assert len(replicas(server, "replica")) == 1
        wait_for(server, "replica", 0, WAIT_S)
