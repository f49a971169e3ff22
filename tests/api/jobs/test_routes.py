"""The contract of `/jobs`: what is answered to what."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.http.keys import new
from api.jobs import runner
from api.jobs.job import Job
from api.jobs.store import Store
from runnables.errors import Cancelled
from runnables.parameters import AnyParameters, TextToImage
from runnables.ticket import Caller, Inputs, Progress, Ticket
from tests.api.jobs.conftest import ASK, LONG, Client
from tests.insides import engine_of

Make = Callable[..., Client]
DOCUMENT = {
    "id", "task", "state", "step", "steps", "position", "eta_s", "priority", "created_at",
    "started_at", "finished_at", "deadline_at", "parameters", "images", "error", "webhook",
    "webhook_state", "webhook_error",
}  # fmt: skip


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_job_is_accepted_drawn_and_fetched(client: Client) -> None:
    parameters = {**ASK, "num_images_per_prompt": 2, "seed": 5, "output_format": "png"}
    answer = client.http.post("/jobs", json={"task": "txt2img", "parameters": parameters})
    assert answer.status_code == 202
    accepted = answer.json()
    assert set(accepted) == DOCUMENT
    assert answer.headers["location"] == f"/jobs/{accepted['id']}"
    done = client.until(accepted["id"], "succeeded")
    assert (done["step"], done["position"]) == (done["steps"], None)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["created_at"].endswith("Z")
    assert [image["seed"] for image in done["images"]] == [5, 6]
    for i, told in enumerate(done["images"]):
        assert told["url"] == f"/jobs/{accepted['id']}/images/{i}"
        image = client.http.get(told["url"])
        assert image.headers["content-type"] == told["content_type"] == "image/png"
        assert image.headers["seed"] == str(5 + i)
        assert image.headers["finish-reason"] == told["finish_reason"] == "success"
        assert Image.open(io.BytesIO(image.content)).size == (told["width"], told["height"])


def test_a_job_draws_what_the_endpoint_draws(client: Client) -> None:
    parameters = {**ASK, "seed": 3, "output_format": "png"}
    job = client.until(client.post(parameters=parameters)["id"], "succeeded")
    drawn = client.http.get(job["images"][0]["url"])
    assert drawn.content == client.http.post("/txt2img", json=parameters).content


def test_images_go_in_as_parts(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    body = {"task": "inpaint", "parameters": {**ASK, "seed": 1, "output_format": "png"}}
    files = {"img": png(photo), "mask": png(mask)}
    answer = client.http.post("/jobs", data={"data": json.dumps(body)}, files=files)
    assert answer.status_code == 202, answer.text
    job = client.until(answer.json()["id"], "succeeded")
    direct = client.http.post(
        "/inpaint", data={"data": json.dumps(body["parameters"])}, files=files
    )
    assert client.http.get(job["images"][0]["url"]).content == direct.content


def test_the_seed_is_known_from_the_start(client: Client) -> None:
    accepted = client.post()
    done = client.until(accepted["id"], "succeeded")
    assert accepted["parameters"]["seed"] == done["images"][0]["seed"]


def test_the_same_id_and_body_is_the_same_job(client: Client) -> None:
    first = client.post(id="mine")
    again = client.http.post("/jobs", json={"id": "mine", "task": "txt2img", "parameters": ASK})
    assert again.status_code == 200
    assert again.json()["created_at"] == first["created_at"]
    other = {"id": "mine", "task": "txt2img", "parameters": {**ASK, "seed": 1}}
    refused = client.http.post("/jobs", json=other)
    assert refused.status_code == 409
    assert refused.json()["detail"][0]["loc"] == ["id"]


def test_cancel_is_idempotent_and_frees_the_rows(client: Client) -> None:
    id = client.post(parameters=LONG)["id"]
    client.until(id, "running")
    for _ in range(2):
        assert client.http.delete(f"/jobs/{id}").status_code == 200
    cancelled = client.until(id, "cancelled")
    assert cancelled["error"] is None and cancelled["images"] == []
    assert client.http.delete(f"/jobs/{id}").json() == cancelled
    assert client.api.runnable.load().active == 0
    assert client.http.get(f"/jobs/{id}/images/0").status_code == 404


def test_a_queued_job_is_cancelled_at_once(make: Make) -> None:
    client = make(jobs_active=1)
    running, queued = client.post(parameters=LONG), client.post(parameters=LONG)
    client.until(running["id"], "running")
    before = client.get(queued["id"])
    assert (before["state"], before["position"]) == ("queued", 0)
    assert before["eta_s"] > 0
    assert client.http.delete(f"/jobs/{queued['id']}").json()["state"] == "cancelled"
    assert client.http.get(f"/jobs/{running['id']}/images/0").status_code == 409
    client.http.delete(f"/jobs/{running['id']}")


def test_ended_jobs_stay_as_they_are(client: Client) -> None:
    done = client.until(client.post()["id"], "succeeded")
    assert client.http.delete(f"/jobs/{done['id']}").json() == done


def test_higher_priority_goes_first(make: Make) -> None:
    client = make(jobs_active=1)
    client.until(client.post(parameters=LONG, id="first")["id"], "running")
    for priority in (0, 9, 5):
        client.post(id=f"p{priority}", priority=priority)
    assert [client.get(f"p{p}")["position"] for p in (9, 5, 0)] == [0, 1, 2]
    assert client.api.jobs.counts() == {"queued": 3, "running": 1}
    client.http.delete("/jobs/first")
    for priority in (0, 9, 5):
        client.until(f"p{priority}", "succeeded")
    starts = [client.get(f"p{p}")["started_at"] for p in (9, 5, 0)]
    assert starts == sorted(starts)


def test_a_deadline_fails_the_job(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits fails then, and not only when there is room for it."""
    client = make(begin=False, jobs_active=1)
    busy = Ticket(TextToImage(prompt="x"), progress=Progress("running", 1, 2))
    monkeypatch.setattr(client.api.runnable, "submit", lambda *_, **__: busy)
    client.api.start()
    client.until(client.post(id="busy")["id"], "running")
    for id, body in {
        "waits": {"deadline_s": 0.3, "priority": 0},
        "named-inside": {"parameters": {**ASK, "deadline_s": 0.2}, "priority": 0},
    }.items():
        client.post(id=id, **body)
        failed = client.until(id, "failed", timeout=60)
        assert failed["error"]["status"] == 504
        assert failed["error"]["detail"][0]["loc"] == ["deadline_s"]
    busy.future.set_exception(Cancelled("it is enough"))
    client.until("busy", "cancelled")


def test_listing_goes_newest_first_in_pages(client: Client) -> None:
    ids = [client.post()["id"] for _ in range(5)]
    for id in ids:
        client.until(id, "succeeded")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.http.get(f"/jobs?limit=2&state=succeeded&cursor={cursor or 2**60}").json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
    assert seen == ids[::-1]
    assert len(client.http.get("/jobs?limit=200").json()["jobs"]) == 5, "the most that a page has"
    assert client.http.get("/jobs?state=queued").json() == {"jobs": [], "next": None}


def test_listing_by_the_beginning_of_the_id(client: Client) -> None:
    for id in ("mine-1", "theirs", "mine-2", "min"):
        client.post(id=id)

    def listed(prefix: str) -> list[str]:
        answer = client.http.get("/jobs", params={"prefix": prefix})
        return [job["id"] for job in answer.json()["jobs"]]

    assert listed("mine-") == ["mine-2", "mine-1"]
    assert listed("m") == ["min", "mine-2", "mine-1"]
    assert listed("") == ["min", "mine-2", "theirs", "mine-1"]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"task": "paint", "parameters": ASK}, ["task"]),
        ({"task": "txt2img"}, ["parameters"]),
        ({"task": "txt2img", "parameters": {}}, ["parameters", "prompt"]),
        ({"task": "txt2img", "parameters": {**ASK, "hieght": 64}}, ["parameters", "hieght"]),
        ({"task": "txt2img", "parameters": {**ASK, "height": 63}}, ["height"]),
        ({"task": "txt2img", "parameters": {**ASK, "scheduler": "no"}}, ["scheduler"]),
        ({"task": "img2img", "parameters": ASK}, ["img"]),
        ({"task": "txt2img", "parameters": ASK, "id": "a/b"}, ["id"]),
        ({"task": "txt2img", "parameters": ASK, "priority": 10}, ["priority"]),
        ({"task": "txt2img", "parameters": ASK, "deadline_s": 0}, ["deadline_s"]),
        ({"task": "txt2img", "parameters": ASK, "webhook": "https://x.example/"}, ["webhook"]),
        ({"task": "txt2img", "parameters": ASK, "colour": 1}, ["colour"]),
    ],
)
def test_bad_jobs_are_refused_by_field(
    client: Client, body: dict[str, Any], loc: list[str]
) -> None:
    answer = client.http.post("/jobs", json=body)
    assert answer.status_code == (404 if loc == ["scheduler"] else 400), answer.text
    assert answer.json()["detail"][0]["loc"] == loc
    assert client.http.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/none", 404),
        ("/jobs/none/events", 404),
        ("/jobs/none/images/0", 404),
        ("/jobs?limit=0", 400),
        ("/jobs?limit=201", 400),
        ("/jobs?limit=x", 400),
        ("/jobs?cursor=-1", 400),
        ("/jobs?state=done", 400),
        ("/jobs?prefix=a%25", 400),
        ("/jobs/none/events?preview_every=-1", 400),
    ],
)
def test_bad_questions(client: Client, path: str, status: int) -> None:
    answer = client.http.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "detail"}
    assert client.http.delete("/jobs/none").status_code == 404


def test_too_many_jobs_are_refused(make: Make) -> None:
    client = make(begin=False, jobs_max=2, jobs_active=1)
    assert client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK}).status_code == 503
    client.api.start()
    client.until(client.post(parameters=LONG, id="busy")["id"], "running")
    client.post(id="a"), client.post(id="b")
    full = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK})
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) >= 1
    assert client.post(id="a")["state"] == "queued"  # the job that is there needs no room
    client.http.delete("/jobs/busy")


def test_the_limit_of_waiting_jobs_is_each_keys_own(make: Make) -> None:
    client = make(api_keys="one,two", jobs_max=1, jobs_active=1)
    one, two = {"x-api-key": "one"}, {"x-api-key": "two"}

    def post(id: str, key: dict[str, str], parameters: dict[str, Any] = LONG) -> int:
        body = {"task": "txt2img", "parameters": parameters, "id": id}
        return client.http.post("/jobs", json=body, headers=key).status_code

    def state(id: str, key: dict[str, str]) -> str:
        return str(client.http.get(f"/jobs/{id}", headers=key).json()["state"])

    assert post("a", one) == 202
    while state("a", one) == "queued":
        time.sleep(0.02)
    assert post("b", one) == 202
    assert post("c", one) == 429
    assert post("d", two) == 202, "the other key floods, not this one"
    client.http.delete("/jobs/a", headers=one)
    for id, key in (("b", one), ("d", two)):
        client.http.delete(f"/jobs/{id}", headers=key)


def test_the_owner_with_the_fewest_running_jobs_is_next(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, owner in enumerate(["one", "one", "one", "two"]):
        store.add(_job(owner, str(number), due=float(number)))
    claimed = [store.claim("runner") for _ in range(4)]
    assert [job.owner for job in claimed if job] == ["one", "two", "one", "one"]
    store.close()


def test_the_address_with_the_fewest_running_jobs_is_next(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, caller in enumerate(["one", "one", "one", "two"]):
        store.add(replace(_job("", str(number), due=float(number)), caller=caller))
    claimed = [store.claim("runner", resting=["two"] if i == 1 else []) for i in range(4)]
    assert [job.caller for job in claimed if job] == ["one", "one", "two", "one"]
    assert store.count("running", "one") == 3
    store.close()


def test_callers_without_keys_have_jobs_of_their_own_where_addresses_tell_them_apart(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(begin=False, anonymous="address", jobs_max=1, jobs_active=1)
    submit, served = client.api.runnable.submit, list[str]()

    def watched(*given: Any, caller: Caller, **options: Any) -> Ticket:
        served.append(caller.name)
        return submit(*given, caller=caller, **options)

    monkeypatch.setattr(client.api.runnable, "submit", watched)
    client.api.start()
    other = TestClient(client.api.app(), client=("10.0.0.2", 50000))
    client.until(client.post(parameters=LONG, id="busy")["id"], "running")
    client.post(id="waits")
    body = {"task": "txt2img", "parameters": ASK}
    assert client.http.post("/jobs", json=body).status_code == 429
    assert other.post("/jobs", json={**body, "id": "theirs"}).status_code == 202
    client.http.delete("/jobs/busy")
    for id in ("waits", "theirs"):
        client.until(id, "succeeded")
    assert served == ["testclient", "testclient", "10.0.0.2"]
    kept = [client.api.jobs.store.get("", id) for id in ("busy", "waits", "theirs")]
    assert [job and job.caller for job in kept] == [""] * 3, "no address is kept after the end"


def test_a_listing_by_state_has_what_its_documents_say(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that waits in the engine is running for the store, and queued for its owner."""
    client = make(begin=False, jobs_active=1)
    tickets = list[Ticket]()

    def submit(parameters: AnyParameters, *given: Any, **options: Any) -> Ticket:
        waits = Progress("queued", 0, 2, position=3, eta_s=100.0)
        tickets.append(Ticket(parameters, progress=waits))
        return tickets[-1]

    def listed(state: str) -> list[tuple[str, int | None]]:
        found = client.http.get("/jobs", params={"state": state}).json()["jobs"]
        assert {job["state"] for job in found} <= {state}
        return [(job["id"], job["position"]) for job in found]

    monkeypatch.setattr(client.api.runnable, "submit", submit)
    client.api.start()
    client.post(id="claimed")
    while client.get("claimed")["position"] != 3:
        time.sleep(0.02)
    client.post(id="stored")
    assert (listed("queued"), listed("running")) == ([("stored", 4), ("claimed", 3)], [])
    own = [job.seconds for job in client.api.jobs.store.page("", "queued", 1, None)]
    assert client.get("stored")["eta_s"] == round(100.0 + sum(own), 2), "both wait for the engine"
    tickets[0].progress = Progress("running", 1, 2)
    assert (listed("queued"), listed("running")) == ([("stored", 0)], [("claimed", None)])
    client.http.delete("/jobs/stored")
    tickets[0].future.set_exception(Cancelled("it is enough"))
    client.until("claimed", "cancelled")


def test_head_streams_and_generates_nothing(make: Make) -> None:
    """A proxy's or a link checker's HEAD lasted as long as the job."""
    client = make()
    id = client.post(parameters=LONG)["id"]
    client.until(id, "running")
    head = client.http.head(f"/jobs/{id}/events")
    assert (head.status_code, head.text) == (200, "")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert client.get(id)["state"] == "running"
    client.http.delete(f"/jobs/{id}")
    image = client.http.head("/imagine?prompt=x&num_inference_steps=1")
    assert (image.status_code, image.headers["allow"]) == (405, "GET")


def _job(owner: str, id: str, due: float) -> Job:
    return Job(
        id=id,
        owner=owner,
        caller=owner,
        task="txt2img",
        parameters={},
        due=due,
        steps=1,
        created=0.0,
    )


def test_a_key_uses_its_models_and_its_share(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secret, key), (other, narrow) = new("a", weight=3.0), new("b", models=("huge",))
    (tmp_path / "keys").write_text(f"{key.line()}\n{narrow.line()}\n")
    client = make(api_keys=str(tmp_path / "keys"))
    engine, seen = engine_of(client.api.runnable), list[Caller]()  # type: ignore[arg-type]
    submit = engine.submit

    def watched(ticket: Ticket, inputs: Inputs) -> None:
        seen.append(ticket.caller)
        submit(ticket, inputs)

    monkeypatch.setattr(engine, "submit", watched)
    headers = {"x-api-key": secret}
    assert client.http.post("/txt2img", json=ASK, headers=headers).status_code == 200
    job = {"task": "txt2img", "parameters": ASK, "id": "mine"}
    assert client.http.post("/jobs", json=job, headers=headers).status_code == 202
    while client.http.get("/jobs/mine", headers=headers).json()["state"] != "succeeded":
        time.sleep(0.02)
    assert seen == [(key.hash, 3.0)] * 2
    for path, body in (("/txt2img", ASK), ("/jobs", job)):
        refused = client.http.post(path, json=body, headers={"x-api-key": other})
        assert refused.status_code == 404
        assert refused.json()["detail"][0]["loc"] == ["model"]


def test_a_key_for_other_models_may_enlarge(make: Make, tmp_path: Path, photo: Image.Image) -> None:
    secret, key = new("b", models=("huge",))
    (tmp_path / "keys").write_text(f"{key.line()}\n")
    client = make(api_keys=str(tmp_path / "keys"))
    headers, files = {"x-api-key": secret}, {"img": png(photo)}
    job = {"data": json.dumps({"task": "upscale", "parameters": {"scale": 2}, "id": "larger"})}
    for path, body in (("/upscale", {"data": "{}"}), ("/jobs", job)):
        answer = client.http.post(path, data=body, files=files, headers=headers)
        assert answer.is_success, answer.text
    while client.http.get("/jobs/larger", headers=headers).json()["state"] != "succeeded":
        time.sleep(0.02)
    image = client.http.get("/jobs/larger/images/0", headers=headers)
    assert "None" not in image.headers.values(), image.headers
    assert image.headers["width"] == str(2 * photo.width)


def test_parameters_are_complete_once_a_further_model_was_loaded(
    make: Make, tiny_model: Any
) -> None:
    client = make(models=f"second={tiny_model('sd2')}")
    accepted = client.post(parameters={**ASK, "model": "second"})
    done = client.until(accepted["id"], "succeeded")
    assert accepted["parameters"]["seed"] == done["images"][0]["seed"]
    assert {"scheduler", "guidance_scale", "height"} <= set(done["parameters"])
    assert client.http.get(done["images"][0]["url"]).headers["scheduler"]


def test_a_quota_is_charged_once_however_often_the_end_is_written(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(api_keys="secret")
    charged, full = list[float](), [True, True]
    parts = client.api.jobs._parts
    assert parts is not None
    write = parts.files.write

    def failing(*arguments: Any) -> None:
        if full:
            raise OSError(full.pop())
        write(*arguments)

    monkeypatch.setattr(parts.files, "write", failing)
    monkeypatch.setattr(runner, "WRITE_AGAIN_S", 0.01)
    monkeypatch.setattr(parts.runner.keys, "used", lambda owner, units: charged.append(units))
    headers = {"x-api-key": "secret"}
    job = {"task": "txt2img", "parameters": ASK, "id": "mine"}
    assert client.http.post("/jobs", json=job, headers=headers).status_code == 202
    while client.http.get("/jobs/mine", headers=headers).json()["state"] != "succeeded":
        time.sleep(0.02)
    assert len(charged) == 1 and not full


def test_jobs_that_wait_when_their_keys_quota_is_used_up_fail(make: Make, tmp_path: Path) -> None:
    secret, key = new("one", quota=0.001)
    (tmp_path / "keys").write_text(f"{key.line()}\n")
    client = make(api_keys=str(tmp_path / "keys"), jobs_active=1)
    client.http.headers["x-api-key"] = secret
    first, waits = client.post(parameters=LONG), client.post()
    client.until(first["id"], "running")
    parts = client.api.jobs._parts
    assert parts is not None and client.get(waits["id"])["state"] == "queued"
    parts.runner.keys.used(key.hash, 0.001)
    client.http.delete(f"/jobs/{first['id']}")
    ended = client.until(waits["id"], "succeeded", "failed")
    assert ended["state"] == "failed", ended
    assert ended["error"]["status"] == 429 and "cost units" in ended["error"]["error"]


@pytest.mark.parametrize("index", ["9" * 5000, "1", "00", "x", "-1"])
def test_images_have_numbers(client: Client, index: str) -> None:
    id = client.until(client.post()["id"], "succeeded")["id"]
    answer = client.http.get(f"/jobs/{id}/images/{index}")
    assert answer.status_code == 404
    assert answer.json()["detail"][0]["loc"] == ["index"]


def test_another_key_sees_nothing(make: Make) -> None:
    client = make(api_keys="one,two")
    one, two = {"x-api-key": "one"}, {"x-api-key": "two"}
    body = {"task": "txt2img", "parameters": ASK, "id": "same"}
    assert client.http.post("/jobs", json=body).status_code == 401
    assert client.http.post("/jobs", json=body, headers=one).status_code == 202
    for method, path in [
        ("GET", "/jobs/same"),
        ("DELETE", "/jobs/same"),
        ("GET", "/jobs/same/events"),
        ("GET", "/jobs/same/images/0"),
    ]:
        assert client.http.request(method, path).status_code == 401
        assert client.http.request(method, path, headers=two).status_code == 404
    assert client.http.get("/jobs", headers=two).json()["jobs"] == []
    other = {**body, "parameters": {**ASK, "seed": 2}}
    assert client.http.post("/jobs", json=other, headers=two).status_code == 202
