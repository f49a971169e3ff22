"""The Lambda function behind API Gateway (proxy integration).

    POST   /v1alpha1, /v1alpha2               a task -> SNS
    GET    /v1alpha2/tasks/{id}?prefix=       its status, and presigned URLs of its images
    DELETE /v1alpha2/tasks/{id}?prefix=       cancel it

A task's id is claimed in the bucket before it is published: sending the same task again is
harmless, sending another one under the same id is refused (409).
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from api.http import presigned, tracing
from hosts.queue.front import status
from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.messages import MAX_BYTES, from_v1alpha1, from_v1alpha2, parse_object
from runnables.errors import (
    InvalidInput,
    PayloadTooLarge,
    StableDiffusionError,
    UnknownName,
    error_body,
)

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

SERVICE = "stable_diffusion_front"  # in traces
FORMS = {"v1alpha1": from_v1alpha1, "v1alpha2": from_v1alpha2}
Event = Mapping[str, Any]


def handler(event: Event, context: object) -> dict[str, Any]:
    """AWS Lambda's entry point."""
    try:
        return answer(front(), event, getattr(context, "aws_request_id", "-"))
    finally:
        tracing.flush()  # Lambda stops this process until the next request


def answer(door: Front, event: Event, number: str = "-") -> dict[str, Any]:
    """The proxy integration's answer. Never raises: every error is an answer.

    Args:
        number: by which the log is searched.
    """
    try:
        return _answer(200, route(door, event))
    except StableDiffusionError as error:
        return _answer(error.status, error_body(error))
    except Exception:
        logger.exception("internal error")
        return _answer(500, _body(f"internal error {number}; the log has the details", ()))


@cache
def front() -> Front:
    """Made once an instance."""
    import boto3

    settings = Settings.from_environment()
    if settings.daemon:
        from hosts.queue.front.xray import DaemonExporter  # a fifth of a second that few need

        tracing.export_by(DaemonExporter(settings.daemon), SERVICE)
    s3 = boto3.client("s3", config=presigned.CONFIG)
    return Front(settings, boto3.client("sns"), s3)


def route(door: Front, event: Event) -> dict[str, Any]:
    """The answer's body.

    Raises:
        StableDiffusionError: naming what is wrong.
    """
    method, parts = event.get("httpMethod"), str(event.get("path") or "").strip("/").split("/")
    if method == "POST" and len(parts) == 1 and parts[0] in FORMS:
        about = {"http.request.method": "POST", "url.path": f"/{parts[0]}"}
        trace = _trace(event)
        with tracing.answer(f"POST /{parts[0]}", trace, about):
            task = FORMS[parts[0]](parse_object(_text(event)))
            return door.accept(task, key=_key(event), trace=tracing.carried() or trace)
    if len(parts) == 3 and parts[0] in FORMS and parts[1] == "tasks":
        prefix = (event.get("queryStringParameters") or {}).get("prefix") or ""
        if method == "GET":
            return status.describe(door, parts[2], prefix)
        if method == "DELETE":
            return status.cancel(door, parts[2], prefix)
    raise UnknownName(f"there is no {method} {event.get('path')}", loc=("path",))


def _text(event: Event) -> str:
    text: str = event.get("body") or ""
    try:
        data = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode()
        text = data.decode()
    except ValueError as error:
        raise InvalidInput("the body is not UTF-8", loc=("body",)) from error
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"the body is larger than {MAX_BYTES} bytes", loc=("body",))
    return text


def _key(event: Event) -> str:
    """The id (not the value) of the caller's API key."""
    return str(((event.get("requestContext") or {}).get("identity") or {}).get("apiKeyId") or "")


def _trace(event: Event) -> dict[str, str]:
    """The caller's trace context, in whichever form it came. SNS refuses empty attributes.

    Lambda tells X-Ray's by a variable, in which the function's own part is the parent.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    found = {name: headers.get(name) for name in ("traceparent", tracing.XRAY)}
    found[tracing.XRAY] = os.environ.get("_X_AMZN_TRACE_ID") or found[tracing.XRAY]
    return {name: value for name, value in found.items() if value}


def _body(message: str, loc: tuple[str, ...]) -> dict[str, Any]:
    return {"error": message, "detail": [{"loc": list(loc), "msg": message}]}


def _answer(status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(body),
    }
