"""`python -m ui`: a Gradio page alone, in front of a service elsewhere."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

import httpx
import uvicorn
from fastapi import FastAPI

from ui.app import build
from ui.client import TIMEOUT, Service


def address(environment: Mapping[str, str]) -> str:
    """Return the service's address by the environment, or "" where it says nothing.

    `SD_UI_SERVICE` is the address. `SERVICE_NAME` and `MODEL_ENDPOINT` are what the Ray Serve
    blueprint's page reads: the latter is the path of its only endpoint, `/imagine`, perhaps below
    the prefix that the service has behind an ingress.
    """
    if environment.get("SD_UI_SERVICE"):
        return environment["SD_UI_SERVICE"].rstrip("/")
    name = environment.get("SERVICE_NAME", "").rstrip("/")
    if name and "://" not in name:
        name = f"http://{name}"
    prefix = environment.get("MODEL_ENDPOINT", "").strip("/").removesuffix("imagine").strip("/")
    return f"{name}/{prefix}".rstrip("/") if name else ""


def application(service: str, key: str = "") -> FastAPI:
    """Return the page in front of this service, with `/healthz` for probes."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    def alive() -> str:
        return "alive"

    http = httpx.AsyncClient(base_url=service, timeout=TIMEOUT)
    return build(Service(http, key), app)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m ui", description=__doc__)
    default = address(os.environ)
    parser.add_argument(
        "--service",
        default=default,
        required=not default,
        help="such as http://127.0.0.1:3000; default: SD_UI_SERVICE, or SERVICE_NAME and "
        "MODEL_ENDPOINT",
    )
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "7860")))
    parser.add_argument(
        "--key",
        default=os.environ.get("SD_UI_KEY", ""),
        help="the service's API key for everybody who reaches the page; without one the page asks",
    )
    chosen = parser.parse_args()
    app = application(chosen.service, chosen.key)
    uvicorn.run(app, host=chosen.host, port=chosen.port, log_level="warning")


if __name__ == "__main__":
    main()
