"""`serve run deploy/ray/serve.yaml`: the application, put together from its two deployments."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from hosts.ray.ingress import Front
from hosts.ray.replica import Drawer


class Arguments(BaseModel):
    """`args` of the application in the config file.

    Attributes:
        models: name -> folder, file or Hub id, of models beside SD_MODEL; a request's `model`
            chooses one, and drawers load it when it is first asked for.
    """

    model_config = ConfigDict(extra="forbid")

    models: dict[Annotated[str, Field(min_length=1, max_length=200)], str] = {}


def build(arguments: dict[str, Any]) -> Application:
    """Scaling and resources of both deployments are in the config file."""
    chosen = Arguments.model_validate(arguments)
    drawers = serve.deployment(Drawer, name="replica").bind(chosen.models)
    return serve.deployment(Front, name="ingress").bind(drawers, list(chosen.models))
