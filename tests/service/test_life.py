"""Disconnects, stops, keys and starts of the real server."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.server import Server, serve, wait_ready

SLOW: dict[str, Any] = {"prompt": "sea", "num_inference_steps": 150, "num_images_per_prompt": 4}
#: BentoML writes it before it imports the service
BEFORE_IMPORT = "Applying user config override"
QUICK = {"prompt": "sea", "num_inference_steps": 1}


def metric(server: Server, name: str) -> float:
    """A value of the server's own metrics."""
    httpx.get(f"{server.url}/readyz")
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"{name} is not in /metrics")


def active(server: Server) -> float:
    """Images being drawn."""
    return metric(server, "sd_active_rows")


def steps(server: Server) -> float:
    """Denoiser calls so far."""
    return metric(server, 'sd_stage_seconds_count{stage="denoise"}')


def until(condition: object, timeout: float = 300) -> bool:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_client_that_goes_away_frees_its_rows(server: Server) -> None:
    assert httpx.post(f"{server.url}/txt2img", json=QUICK, timeout=300).status_code == 200
    before = steps(server)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/txt2img", json=SLOW, timeout=0.7)
    assert until(lambda: active(server) == 0)
    assert httpx.post(f"{server.url}/txt2img", json=QUICK, timeout=300).status_code == 200
    assert steps(server) - before < SLOW["num_inference_steps"], "it is not generated to its end"


def test_past_the_deadline(server: Server) -> None:
    response = httpx.post(f"{server.url}/txt2img", json={**SLOW, "deadline_s": 0.3}, timeout=300)
    assert response.status_code == 504
    assert response.json()["detail"][0]["loc"] == ["deadline_s"]


def test_from_start_to_stop(tmp_path: Path) -> None:
    """One server, as starts are dear: while it loads, when it works, and how it ends."""
    settings = {
        "SD_API_KEYS": "secret,other",
        "SD_MAX_QUEUE_S": "0.001",
        "SD_CORS_ORIGINS": "https://app.example",
        "SD_LOG_FORMAT": "json",
        "SD_DRAIN_S": "60",
    }
    with serve(tmp_path / "log", ready=False, **settings) as server:
        check_probes_while_the_model_loads(server)
        wait_ready(server)
        check_keys(server)
        check_capacity_and_origins(server)
        check_that_a_stop_finishes_what_was_accepted(server)
    lines = (tmp_path / "log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if BEFORE_IMPORT not in line]
    assert any(entry.get("status") == 429 for entry in entries)
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)


def check_probes_while_the_model_loads(server: Server) -> None:
    assert until(lambda: _answers(f"{server.url}/livez"), timeout=300)
    first = httpx.get(f"{server.url}/readyz", timeout=60)
    assert first.status_code == 503
    assert first.json()["detail"]
    assert int(first.headers["retry-after"]) >= 1


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def post(server: Server, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/txt2img", json=body, headers=headers, timeout=300)


def check_keys(server: Server) -> None:
    assert post(server, QUICK).status_code == 401
    assert post(server, QUICK, **{"x-api-key": "no"}).status_code == 401
    for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer other"}):
        assert post(server, QUICK, **headers).status_code == 200


def check_capacity_and_origins(server: Server) -> None:
    key = {"x-api-key": "secret", "origin": "https://app.example"}
    with ThreadPoolExecutor(1) as client:
        busy = client.submit(post, server, SLOW, **key, **{"x-request-id": "busy"})
        assert until(lambda: active(server) == 4)
        full = post(server, QUICK, **key)
        httpx.delete(f"{server.url}/jobs/busy", headers=key)
        assert busy.result().status_code == 499
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) >= 1
    assert full.headers["access-control-allow-origin"] == "https://app.example"


def check_that_a_stop_finishes_what_was_accepted(server: Server) -> None:
    """New connections are answered meanwhile, and told to come back."""
    key = {"x-api-key": "secret"}
    with ThreadPoolExecutor(2) as clients:
        body = {"prompt": "sea", "num_inference_steps": 60}
        accepted = clients.submit(post, server, body, **key)
        assert until(lambda: active(server) == 1)
        stopped = clients.submit(server.stop)
        assert until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        refused = post(server, QUICK, **key)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert accepted.result().status_code == 200
        stopped.result()


def test_an_unknown_setting_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not ready"), serve(tmp_path / "log", SD_STEPS="5"):
        pass
    assert "SD_STEPS is not a setting" in (tmp_path / "log").read_text()
