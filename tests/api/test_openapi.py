"""The document follows from the parameters, and BentoML's schema reader can read them too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from api import openapi
from runnables.parameters import MODELS, Task
from tests.service.server import ROOT


@pytest.mark.parametrize("task", MODELS)
def test_every_parameter_is_described(task: Task) -> None:
    schema = openapi.document()["components"]["schemas"][MODELS[task].__name__]
    assert set(schema["properties"]) == set(MODELS[task].model_fields)
    assert MODELS[task].model_validate(schema["examples"][0])


@pytest.mark.parametrize("task", MODELS)
def test_references_lead_somewhere(task: Task) -> None:
    text = str(openapi.document())
    for name in openapi.document()["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text


def test_errors_have_one_shape() -> None:
    answers = openapi.document()["paths"]["/img2img"]["post"]["responses"]
    assert {"400", "401", "404", "413", "415", "429", "503", "504"} <= set(answers)


def test_mask_polarity_is_named() -> None:
    content = openapi.document()["paths"]["/inpaint"]["post"]["requestBody"]["content"]
    mask = content["multipart/form-data"]["schema"]["properties"]["mask"]
    assert "White is redrawn" in mask["description"]


def test_bentoml_can_describe_the_service() -> None:
    """As `bentoml build` does, whose reader knows fewer JSON Schema keywords than pydantic."""
    code = "import service; assert '/txt2img' in service.svc.openapi_spec.asdict()['paths']"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
