"""Disconnects, stops, keys and starts of the real server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.service.server import Server, serve, wait_ready

SLOW = {"prompt": "sea", "num_inference_steps": 150, "num_images_per_prompt": 4}
QUICK = {"prompt": "sea", "num_inference_steps": 1}


def active(server: Server) -> float:
    """Images being drawn, by the server's own metrics."""
    httpx.get(f"{server.url}/readyz")
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith("sd_active_rows"):
            return float(line.rpartition(" ")[2])
    raise AssertionError("sd_active_rows is not in /metrics")


def until(condition: object, timeout: float = 20) -> bool:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_client_that_goes_away_frees_its_rows(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/txt2img", json=SLOW, timeout=0.7)
    assert until(lambda: active(server) == 0)
    assert httpx.post(f"{server.url}/txt2img", json=QUICK, timeout=60).status_code == 200


def test_probes_answer_at_once_while_the_model_loads(tmp_path: Path) -> None:
    with serve(tmp_path / "log", ready=False) as server:
        assert until(lambda: _answers(f"{server.url}/livez"), timeout=60)
        first = httpx.get(f"{server.url}/readyz", timeout=5)
        assert first.status_code == 503
        assert first.json()["detail"]
        assert int(first.headers["retry-after"]) >= 1
        wait_ready(server)
        assert httpx.post(f"{server.url}/txt2img", json=QUICK, timeout=60).status_code == 200


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_past_the_deadline(server: Server) -> None:
    response = httpx.post(f"{server.url}/txt2img", json={**SLOW, "deadline_s": 0.3}, timeout=60)
    assert response.status_code == 504
    assert response.json()["detail"][0]["loc"] == ["deadline_s"]


def test_sigterm_finishes_what_was_accepted(tmp_path: Path) -> None:
    with serve(tmp_path / "log", SD_DRAIN_S="60") as server:
        answers: list[httpx.Response] = []
        ask = {"prompt": "sea", "num_inference_steps": 150}

        def draw() -> None:
            answers.append(httpx.post(f"{server.url}/txt2img", json=ask, timeout=60))

        thread = threading.Thread(target=draw)
        thread.start()
        assert until(lambda: active(server) == 1)
        server.stop()
        thread.join()
    assert [answer.status_code for answer in answers] == [200]


def test_keys_capacity_and_origins(tmp_path: Path) -> None:
    settings = {
        "SD_API_KEYS": "secret,other",
        "SD_MAX_QUEUE_S": "0.05",
        "SD_CORS_ORIGINS": "https://app.example",
        "SD_LOG_FORMAT": "json",
    }
    with serve(tmp_path / "log", **settings) as server:
        url = f"{server.url}/txt2img"
        refused = httpx.post(url, json=QUICK)
        assert refused.status_code == 401
        assert httpx.post(url, json=QUICK, headers={"x-api-key": "no"}).status_code == 401
        for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer other"}):
            assert httpx.post(url, json=QUICK, headers=headers, timeout=60).status_code == 200

        key = {"x-api-key": "secret", "origin": "https://app.example"}
        busy = threading.Thread(
            target=lambda: httpx.post(url, json={**SLOW, "deadline_s": 30}, headers=key, timeout=60)
        )
        busy.start()
        assert until(lambda: active(server) == 4)
        full = httpx.post(url, json=QUICK, headers=key)
        busy.join()
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        assert full.headers["access-control-allow-origin"] == "https://app.example"
    assert '"status": 429' in (tmp_path / "log").read_text()


def test_an_unknown_setting_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not ready"), serve(tmp_path / "log", SD_STEPS="5"):
        pass
    assert "SD_STEPS is not a setting" in (tmp_path / "log").read_text()
