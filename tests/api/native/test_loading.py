"""Operators load and unload models over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import Api
from api.http.keys import new
from api.native import routes
from runnables.runnable import StableDiffusionRunnable

ASK = {"prompt": "a cat", "num_inference_steps": 2, "seed": 3}
OPERATOR, USER = new(name="ops", operator=True), new(name="user")
AS_USER = {"x-api-key": USER[0]}


@pytest.fixture(scope="module")
def client(
    start: Callable[..., StableDiffusionRunnable], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("keys")
    file = folder / "keys"
    file.write_text(f"{OPERATOR[1].line()}\n{USER[1].line()}\n")
    api = Api(start("sd1", api_keys=str(file), jobs_dir=str(folder / "jobs")))
    api.start()
    with TestClient(api.app(), raise_server_exceptions=False) as client:
        client.headers["x-api-key"] = OPERATOR[0]
        yield client
    api.stop()


def test_unloaded_and_loaded_again(client: TestClient) -> None:
    unloaded = client.post("/models/sd1/unload")
    assert unloaded.status_code == 200 and unloaded.json()["loaded"] is False
    assert unloaded.json()["height"] == 64, "what is known of it stays"
    assert client.get("/readyz").status_code == 200
    assert client.post("/txt2img", json=ASK, headers=AS_USER).status_code == 200
    assert client.get("/models").json()[0]["loaded"] is True
    client.post("/models/sd1/unload")
    loaded = client.post("/models/sd1/load")
    assert loaded.status_code == 200 and loaded.json()["loaded"] is True


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_operators_only(client: TestClient, verb: str) -> None:
    refused = client.post(f"/models/sd1/{verb}", headers=AS_USER)
    assert refused.status_code == 403 and "operator=true" in refused.json()["error"]
    assert client.post(f"/models/sd1/{verb}", headers={"x-api-key": "no"}).status_code == 401
    assert client.get("/models").json()[0]["loaded"] is True


def test_an_unknown_model_is_404(client: TestClient) -> None:
    answer = client.post("/models/sd9/unload")
    assert answer.status_code == 404
    assert answer.json()["detail"][0]["loc"] == ["name"]


def test_a_model_that_cannot_be_read_says_so(
    start: Callable[..., StableDiffusionRunnable], tmp_path: Path
) -> None:
    """Without keys everybody is let in, as everywhere."""
    api = Api(start("sd1", models=f"broken={tmp_path}", jobs_dir=str(tmp_path / "jobs")))
    with TestClient(api.app(), raise_server_exceptions=False) as client:
        answer = client.post("/models/broken/load")
    assert (
        answer.status_code == 503 and "the model broken cannot be loaded" in answer.json()["error"]
    )


def test_few_models_are_changed_at_a_time(
    start: Callable[..., StableDiffusionRunnable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each holds a thread that all requests share."""
    begun, go = threading.Semaphore(0), threading.Event()

    def change(name: str, *, load: bool) -> None:
        begun.release()
        go.wait(30)

    runnable = start("sd1", jobs_dir=str(tmp_path / "jobs"))
    monkeypatch.setattr(runnable, "change_model", change)
    with TestClient(Api(runnable).app()) as client, ThreadPoolExecutor(routes.CHANGES) as pool:
        changes = [pool.submit(client.post, "/models/sd1/load") for _ in range(routes.CHANGES)]
        for _ in changes:
            begun.acquire()
        refused = client.post("/models/sd1/unload")
        assert refused.status_code == 429 and "retry-after" in refused.headers
        go.set()
        assert [one.result().status_code for one in changes] == [200] * routes.CHANGES
        assert client.post("/models/sd1/unload").status_code == 200
