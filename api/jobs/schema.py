"""`/jobs` in the OpenAPI document."""

from __future__ import annotations

from typing import Any, get_args

from api.http import request_id
from api.http.operations import (
    BINARY,
    GENERATING,
    LOOKING,
    Schema,
    controls,
    json,
    operation,
    path_field,
    query,
    reference,
    schema_of,
)
from api.jobs.job import Delivery
from api.jobs.routes import MAX_LIMIT, MAX_STEPS
from api.jobs.submission import JobRequest
from api.progress.record import State
from runnables.parameters import MODELS

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
PREFIX: Schema = {"type": "string", "pattern": f"^{request_id.ID.pattern}$"}
DELIVERY: Schema = {"type": "string", "enum": list(get_args(Delivery))}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
STATE: Schema = {"type": "string", "enum": list(get_args(State))}
#: what a request for a job can be refused with
SUBMITTING = (*(status for status in GENERATING if status not in (499, 500, 504)), 409)
FINDING = (*LOOKING, 404)
ID = path_field("id", "The id of a job, or the `X-Request-Id` of a synchronous request")


def paths() -> Schema:
    """Return path -> method -> operation."""
    return {
        "/jobs": {"post": _submit(), "get": _list()},
        "/jobs/{id}": {
            "get": _one("A job, or a synchronous request by its `X-Request-Id`"),
            "delete": _one("Cancel it at its next step; what has ended stays as it is"),
        },
        "/jobs/{id}/webhook": {"post": _deliver_again()},
        "/jobs/{id}/events": {"get": _events()},
        "/jobs/{id}/images/{index}": {"get": _image()},
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    body = schema_of(JobRequest)
    body["properties"]["parameters"] = {
        "description": "As the task's own endpoint takes them.",
        "anyOf": [reference(model.__name__) for model in MODELS.values()],
    }
    return {"JobRequest": body, "Job": _job()}


def _job() -> Schema:
    properties: dict[str, Any] = {
        "id": TEXT,
        "task": {"type": "string", "enum": list(MODELS)},
        "state": STATE,
        "step": WHOLE,
        "steps": WHOLE,
        "position": {"type": ["integer", "null"], "description": "In the queue; 0 is next"},
        "eta_s": NUMBER_OR_NULL,
        "priority": WHOLE,
        "created_at": TIME,
        "started_at": TIME,
        "finished_at": TIME,
        "deadline_at": TIME,
        "parameters": {"type": "object", "description": "With every default and the seed"},
        "images": {"type": "array", "items": _described()},
        "error": {"type": ["object", "null"]},
        "webhook": {"type": ["string", "null"]},
        "webhook_state": {
            "type": ["string", "null"],
            "enum": [*get_args(Delivery), None],
            "description": "How far the webhook of a job that has ended is",
        },
        "webhook_error": {
            "type": ["string", "null"],
            "description": "Why the last try to deliver it failed",
        },
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _described() -> Schema:
    text = dict.fromkeys(("url", "finish_reason", "content_type"), TEXT)
    properties = {**text, **dict.fromkeys(("width", "height"), WHOLE)}
    properties["seed"] = {
        "type": ["integer", "null"],
        "description": "null where an image was only enlarged",
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _submit() -> Schema:
    files = {
        "img": {**BINARY, "description": "For img2img, inpaint and upscale"},
        "mask": {**BINARY, "description": "For inpaint; white is repainted"},
        "control": controls("An image for each of `controlnets`, in their order"),
    }
    wanted = reference("JobRequest")
    form = {"type": "object", "properties": {"data": wanted, **files}, "required": ["data"]}
    body = {
        "application/json": {"schema": wanted},
        "multipart/form-data": {
            "schema": form,
            "encoding": {"data": {"contentType": "application/json"}},
        },
    }
    answers = {
        "202": json(reference("Job"), "Accepted: it will end, whatever happens to the service"),
        "200": json(reference("Job"), "The job of this id that is there"),
    }
    return operation("Generate later", answers, errors=SUBMITTING, body=body)


def _list() -> Schema:
    listed = {
        "type": "object",
        "required": ["jobs", "next"],
        "properties": {
            "jobs": {"type": "array", "items": reference("Job")},
            "next": {"type": ["string", "null"], "description": "The next page's `cursor`"},
        },
    }
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50}
    return operation(
        "Your jobs, newest first",
        {"200": json(listed)},
        errors=(*LOOKING, 400),
        parameters=[
            query("state", STATE, "Only these"),
            query("webhook", DELIVERY, "Only those whose webhook is so far"),
            query("limit", limit, "Jobs per page"),
            query("prefix", PREFIX, "Only ids that begin so"),
            query("cursor", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "From `next`"),
        ],
    )


def _one(summary: str) -> Schema:
    found = {"200": json(reference("Job"))}
    return operation(summary, found, errors=FINDING, parameters=[ID])


def _deliver_again() -> Schema:
    return operation(
        "Send the webhook of a job that has ended again, delivered or dead",
        {"202": json(reference("Job"), "It is due now")},
        errors=(*FINDING, 409),
        parameters=[ID],
    )


def _events() -> Schema:
    text = "`progress` events, and one last named by the final state, with the job"
    stream = {"description": text, "content": {"text/event-stream": {"schema": TEXT}}}
    every = {"type": "integer", "minimum": 0, "maximum": MAX_STEPS, "default": 0}
    return operation(
        "Progress as server-sent events",
        {"200": stream},
        errors=(*FINDING, 400),
        parameters=[ID, query("preview_every", every, "A preview every so many steps; 0: none")],
    )


def _image() -> Schema:
    kinds = ("image/jpeg", "image/png", "image/webp")
    image = {"description": "The image", "content": {kind: {"schema": BINARY} for kind in kinds}}
    return operation(
        "An image of a job that has succeeded",
        {"200": image},
        errors=(*FINDING, 409),
        parameters=[ID, path_field("index", "From 0")],
    )
