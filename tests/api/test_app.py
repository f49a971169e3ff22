"""The route table over tiny real models, without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.version import VERSION
from tests.insides import engine_of

Start = Callable[..., StableDiffusionRunnable]
ASK = {"prompt": "x", "num_inference_steps": 1}


def client(runnable: StableDiffusionRunnable) -> TestClient:
    return TestClient(Api(runnable).app(), raise_server_exceptions=False)


def test_while_the_model_loads() -> None:
    loading = client(StableDiffusionRunnable(Settings()))
    assert loading.get("/livez").status_code == 200
    for response in (loading.get("/readyz"), loading.post("/txt2img", json=ASK)):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "loading" in response.json()["error"]


def test_a_model_that_could_not_be_loaded_says_why() -> None:
    api = Api(StableDiffusionRunnable(Settings()))
    api.failure = "unet/config.json is missing"
    response = TestClient(api.app()).get("/readyz")
    assert response.status_code == 503
    assert "unet/config.json is missing" in response.json()["error"]


def test_it_is_ready_when_jobs_can_be_sent(start: Start, tmp_path: Path) -> None:
    api = Api(start("sd1", jobs_dir=str(tmp_path)))
    served = TestClient(api.app())
    assert served.get("/readyz").status_code == 503
    api.start()
    assert served.get("/readyz").status_code == 200
    assert served.get("/jobs").status_code == 200
    api.stop()


def test_after_draining_nothing_is_accepted(start: Start) -> None:
    runnable = start("sd1")
    served = client(runnable)
    assert served.post("/txt2img", json=ASK).status_code == 200
    runnable.drain()
    response = served.post("/txt2img", json=ASK)
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert served.get("/readyz").status_code == 503


def test_an_engine_that_has_failed_is_no_longer_alive(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    served = client(runnable)
    assert served.get("/livez").status_code == 200
    monkeypatch.setattr(type(engine_of(runnable)._watch), "alive", False)
    for response in (
        served.get("/livez"),
        served.get("/readyz"),
        served.post("/txt2img", json=ASK),
    ):
        assert response.status_code == 503
    assert "restarted" in served.get("/livez").json()["error"]


def test_keys_guard_all_but_the_probes_and_the_page() -> None:
    guarded = client(StableDiffusionRunnable(Settings(api_keys="secret")))
    assert guarded.post("/txt2img", json=ASK).status_code == 401
    for path, status in {"/samplers": 401, "/models": 401, "/livez": 200, "/": 200}.items():
        assert guarded.get(path).status_code == status, path
    assert guarded.get("/samplers").headers["www-authenticate"] == "Bearer"
    assert guarded.get("/samplers", headers={"x-api-key": "secret"}).status_code == 200


def test_the_version_is_open_to_all() -> None:
    guarded = client(StableDiffusionRunnable(Settings(api_keys="secret")))
    found = guarded.get("/version").json()
    assert found["version"] == VERSION
    assert found["torch"].startswith(torch.__version__.partition("+")[0])


def test_minus_one_is_any_seed(start: Start) -> None:
    served = client(start("sd1"))
    seeds = {served.post("/txt2img", json=ASK | {"seed": -1}).headers["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert served.post("/txt2img", json=ASK | {"seed": -2}).status_code == 400


def test_unknown_errors_leak_nothing_and_browsers_may_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runnable = StableDiffusionRunnable(Settings(cors_origins="https://app.example"))

    def fails(kind: str) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(runnable, "listed", fails)
    response = client(runnable).get("/samplers", headers={"origin": "https://app.example"})
    assert response.status_code == 500
    assert set(response.json()) == {"error", "detail"}
    assert "secret" not in response.text
    assert response.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("allowed", ["", "https://app.example"])
def test_other_origins_are_told_nothing_and_the_log_says_so_once(
    allowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = client(StableDiffusionRunnable(Settings(cors_origins=allowed)))
    for origin in ("https://other.example", "https://other.example", "http://testserver"):
        response = api.get("/livez", headers={"origin": origin})
        assert "access-control-allow-origin" not in response.headers
    (line,) = [one.getMessage() for one in caplog.records if one.name == "api.cors"]
    assert "https://other.example" in line
    assert line.endswith(f"SD_CORS_ORIGINS allows {allowed or 'none'}")


def test_an_origin_that_is_allowed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    api = client(StableDiffusionRunnable(Settings(cors_origins="*")))
    response = api.get("/livez", headers={"origin": "https://other.example"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert not [one for one in caplog.records if one.name == "api.cors"]


OTHER, OWN = "https://other.example", "http://testserver"


@pytest.mark.parametrize(
    ("sent", "allowed", "status"),
    [
        ({}, "", 503),  # no browser: it is answered that the model loads
        ({"origin": OWN}, "", 503),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind-a-proxy.example"}, "", 503),
        ({"sec-fetch-site": "none"}, "", 503),
        ({"origin": OTHER}, OTHER, 503),
        ({"origin": OTHER, "sec-fetch-site": "cross-site"}, "*", 503),
        ({"origin": OTHER}, "", 403),
        ({"origin": OTHER}, "https://app.example", 403),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, "", 403),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-site"}, "", 403),
        ({"sec-fetch-site": "cross-site"}, "", 403),
    ],
)
@pytest.mark.parametrize(
    "path", ["/txt2img", "/jobs", "/mcp", "/v1/images/generations", "/sdapi/v1/txt2img"]
)
def test_pages_of_other_sites_have_nothing_generated(
    sent: dict[str, str], allowed: str, status: int, path: str
) -> None:
    api = client(StableDiffusionRunnable(Settings(cors_origins=allowed)))
    response = api.post(path, json=ASK, headers=sent)
    if status == 403:
        assert response.status_code == 403
        assert "SD_CORS_ORIGINS" in response.text
    else:
        assert response.status_code != 403
    assert api.get("/samplers", headers=sent).status_code != 403
    drawn = api.get("/imagine", params={"prompt": "x"}, headers=sent)
    assert (drawn.status_code == 403) == (status == 403)


def test_an_image_in_a_page_of_another_site_names_the_page_by_its_referrer() -> None:
    api = client(StableDiffusionRunnable(Settings(cors_origins=OTHER)))
    image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    for page, status in ((f"{OTHER}/", 503), ("https://third.example/", 403)):
        sent = {**image, "referer": page}
        assert api.get("/imagine", params={"prompt": "x"}, headers=sent).status_code == status


def test_a_link_from_another_site_is_followed_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = client(StableDiffusionRunnable(Settings()))
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert api.get("/livez", headers=followed).is_success
    assert not [one for one in caplog.records if one.name == "api.cors"]


@pytest.mark.parametrize("paths", [("/", "/docs"), ("/docs.json", "/openapi.json")])
def test_the_documentation_has_the_names_that_people_guess(paths: tuple[str, str]) -> None:
    api = client(StableDiffusionRunnable(Settings()))
    first, second = (api.get(path) for path in paths)
    assert (first.status_code, first.content) == (200, second.content)
