"""The document follows from the parameters, and BentoML's schema reader can read them too."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from starlette.routing import Route

from api import openapi
from api.app import Api
from runnables.parameters import MODELS, Task
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from tests.service.server import ROOT


@pytest.mark.parametrize("task", MODELS)
def test_every_parameter_is_described(task: Task) -> None:
    schema = openapi.document()["components"]["schemas"][MODELS[task].__name__]
    assert set(schema["properties"]) == set(MODELS[task].model_fields)
    assert MODELS[task].model_validate(schema["examples"][0])


def test_references_lead_somewhere() -> None:
    document = openapi.document()
    references = set(re.findall(r"'\$ref': '([^']*)'", str(document)))
    assert len(references) > 10
    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    named = {reference.rpartition("/")[2] for reference in references}
    assert named >= set(document["components"]["schemas"]), "there is none that nobody uses"


def test_errors_have_one_shape() -> None:
    answers = openapi.document()["paths"]["/img2img"]["post"]["responses"]
    assert {"400", "401", "404", "413", "415", "429", "503", "504"} <= set(answers)


def test_mask_polarity_is_named() -> None:
    content = openapi.document()["paths"]["/inpaint"]["post"]["requestBody"]["content"]
    mask = content["multipart/form-data"]["schema"]["properties"]["mask"]
    assert "White is repainted" in mask["description"]


def test_bentoml_can_describe_the_service() -> None:
    """As `bentoml build` does, whose reader knows fewer JSON Schema keywords than pydantic."""
    code = "import service; assert '/txt2img' in service.svc.openapi_spec.asdict()['paths']"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_route_is_in_the_document() -> None:
    app: Any = Api(StableDiffusionRunnable(Settings())).app()
    routed = {
        re.sub(r":\w+}", "}", route.path): route.methods
        for route in app.app.routes
        if isinstance(route, Route)
    }
    described = openapi.document()["paths"]
    # pages, the document itself, and what the Model Context Protocol describes
    hidden = {"/", "/docs", "/docs.json", "/openapi.json", "/ui", "/mcp"}
    assert set(routed) - hidden <= set(described), "undocumented"
    assert set(described) - set(routed) == {"/metrics"}, "documented, but not there"
