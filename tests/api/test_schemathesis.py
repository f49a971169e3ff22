"""Whatever the OpenAPI document allows, and what it does not: answers are as documented, no 5xx.

Generated requests, valid and invalid, against every operation, over a tiny real model. More:
`LONG=1 pytest tests/api/test_schemathesis.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks
from schemathesis.transport import asgi

from api import openapi
from api.app import Api
from api.http.gateway import Asgi, Gateway
from api.openai import stream
from runnables.runnable import StableDiffusionRunnable
from tests.long import LONG


def no_server_error(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """But 504: requests may ask for a deadline that nothing can meet."""
    assert response.status_code < 500 or response.status_code == 504, response.text


EXAMPLES = 200 if LONG else 5
CHECKS = (
    no_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
)


NAMES = (
    "progress|succeeded|failed|cancelled|error|image_(generation|edit)[.](partial_image|completed)"
)
#: Schemathesis takes a stream's schema as that of each event. OpenAPI 3.1 means the text of all
#: events, and has no schema of one (3.2 has, which generators of clients do not read yet).
EVENT = {
    "schema": {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "pattern": f"^({NAMES})$"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"type": "object", "minProperties": 1},
            },
        },
        "additionalProperties": False,
    }
}


def quick(part: Any) -> Any:
    """The document with fewer steps and images at most: what may be long is tested elsewhere.

    A stream's schema becomes that of its events.
    """
    if isinstance(part, list):
        return [quick(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = {key: EVENT if key == "text/event-stream" else value for key, value in part.items()}
    most = {150: 4, 10: 2}.get(part.get("maximum", 0))
    return {key: quick(value) for key, value in part.items()} | ({"maximum": most} if most else {})


#: what the host answers itself is not ours to test here
schema = schemathesis.openapi.from_dict(quick(openapi.document())).exclude(path="/metrics")


@pytest.fixture(scope="module")
def served(
    start: Callable[..., StableDiffusionRunnable],
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asgi]:
    """Our application behind its gateway; small images only, so that many can be drawn."""
    folder = tmp_path_factory.mktemp("schemathesis")
    model = shutil.copytree(tiny_model("sd1"), folder / "model")
    (model / "profile.json").write_text('{"num_inference_steps": 1}')
    runnable = start(
        "sd1",
        max_pixels=64 * 64,
        request_timeout_s=20,
        model=str(model),
        jobs_dir=str(folder / "jobs"),
    )
    api = Api(runnable)
    api.start()
    gateway = Gateway(runnable.settings)
    gateway.serve(api.app())
    yield gateway.around(_host)
    api.stop()


async def _host(scope: object, receive: object, send: object) -> None:
    raise AssertionError("a path of the host")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_documented(case: schemathesis.Case, served: Asgi) -> None:
    response = asgi.ASGI_TRANSPORT.send(case, app=served, timeout=300)
    case.validate_response(response, checks=CHECKS)


def test_events_of_a_stream_are_checked(served: Asgi, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"prompt": "x", "size": "64x64", "num_inference_steps": 1, "stream": True}
    case = schema["/v1/images/generations"]["POST"].Case(body=body, media_type="application/json")
    response = asgi.ASGI_TRANSPORT.send(case, app=served, timeout=300)
    assert "event: image_generation.completed" in response.text
    case.validate_response(response, checks=CHECKS)
    monkeypatch.setitem(vars(stream.GENERATION), "name", "image")
    response = asgi.ASGI_TRANSPORT.send(case, app=served, timeout=300)
    with pytest.raises(FailureGroup):
        case.validate_response(response, checks=CHECKS)
