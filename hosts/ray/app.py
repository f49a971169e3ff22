"""`serve run deploy/ray/serve.yaml`: the application, put together from its two deployments."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from hosts.ray.ingress import Ingress
from hosts.ray.replica import Replica


class Arguments(BaseModel):
    """`args` of the application in the config file.

    Attributes:
        models: name -> source of further models, beside those of SD_MODELS.
    """

    model_config = ConfigDict(extra="forbid")

    models: dict[str, str] = {}


def build(arguments: dict[str, Any]) -> Application:
    """Ray's entry point; scaling and resources of both deployments are in the config file."""
    further = Arguments.model_validate(arguments).models
    replicas = serve.deployment(Replica, name="replica").bind(further)
    return serve.deployment(Ingress, name="ingress").bind(replicas)
