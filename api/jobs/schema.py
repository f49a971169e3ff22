"""`/jobs` in the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from api.http import request_id
from api.http.operations import (
    BINARY,
    GENERATING,
    HINT,
    IMAGE_KINDS,
    LOOKING,
    Schema,
    components,
    controls,
    events,
    file,
    json,
    operation,
    path_field,
    query,
    reference,
)
from api.jobs.job import Delivery
from api.jobs.routes import MAX_LIMIT, MAX_STEPS
from api.jobs.submission import JobRequest
from api.progress.record import State
from runnables.parameters import MODELS, Task
from runnables.ticket import FinishReason

_operation = partial(operation, tag="jobs")
PREFIX: Schema = {"type": "string", "pattern": f"^{request_id.ID.pattern}$"}
DELIVERY: Schema = {"type": "string", "enum": list(get_args(Delivery))}
STATE: Schema = {"type": "string", "enum": list(get_args(State))}
#: what a request for a job can be refused with
SUBMITTING = (*(status for status in GENERATING if status not in (499, 500, 504)), 409)
FINDING = (*LOOKING, 404)
#: what an address of `/jobs/{id}/links` has in place of a key
SIGNED = [
    query("expires", {"type": "string"}, "Of `/jobs/{id}/links`: the Unix time"),
    query("signature", {"type": "string"}, "Of `/jobs/{id}/links`, in place of a key"),
]
ID = path_field("id", "The id of a job, or the `X-Request-Id` of a synchronous request")


class JobImage(BaseModel):
    """An image of a job that has succeeded."""

    url: str = Field(description="Where this service answers it")
    seed: int | None = Field(description="null where an image was only enlarged")
    finish_reason: FinishReason
    hint: str | None = Field(description=HINT)
    content_type: str
    width: int
    height: int


class JobError(BaseModel):
    """The reason why a job has failed."""

    model_config = ConfigDict(extra="allow")

    error: str
    status: int = 0


class Job(BaseModel):
    """A job, or a synchronous request, which has fewer fields set."""

    id: str
    task: Task
    state: State
    step: int
    steps: int
    position: int | None = Field(description="In the queue; 0 is next")
    eta_s: float | None
    priority: int
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    parameters: dict[str, Any] = Field(description="With every default and the seed")
    images: list[JobImage]
    error: JobError | None
    webhook: str | None
    webhook_state: Delivery | None = Field(
        description="How far the webhook of a job that has ended is"
    )
    webhook_error: str | None = Field(description="Why the last try to deliver it failed")


class Jobs(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]
    next: str | None = Field(description="The next page's `cursor`")


class JobLinks(BaseModel):
    """Addresses that need no key, and expire (`SD_URL_EXPIRY_S`)."""

    events: str = Field(description="For an EventSource; its last event has such URLs, too")
    images: list[str] = Field(description="For `<img>`; none before the job has succeeded")


def paths() -> Schema:
    """Return path -> method -> operation."""
    return {
        "/jobs": {"post": _submit(), "get": _list()},
        "/jobs/{id}": {
            "get": _one("getJob", "A job, or a synchronous request by its `X-Request-Id`"),
            "delete": _one(
                "cancelJob", "Cancel it at its next step; what has ended stays as it is"
            ),
        },
        "/jobs/{id}/webhook": {
            "post": _operation(
                "deliverJobWebhook",
                "Send the webhook of a job that has ended again, delivered or dead",
                None,
                further={202: json("Job", "It is due now")},
                errors=(*FINDING, 409),
                parameters=[ID],
            )
        },
        "/jobs/{id}/links": {
            "get": _operation(
                "getJobLinks",
                "Addresses of its events and images that browsers open without a key, for a while",
                "JobLinks",
                errors=FINDING,
                parameters=[ID],
            )
        },
        "/jobs/{id}/events": {"get": _events()},
        "/jobs/{id}/images/{index}": {"get": _image()},
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    sent = components({"JobRequest": JobRequest}, "validation")
    sent["JobRequest"]["properties"]["parameters"] = {
        "description": "As the task's own endpoint takes them.",
        "anyOf": [reference(model.__name__) for model in MODELS.values()],
    }
    sent["JobRequest"]["examples"] = [
        {"task": "txt2img", "parameters": {"prompt": "View of a cyberpunk city"}}
    ]
    return sent | components({"Job": Job, "Jobs": Jobs, "JobLinks": JobLinks}, "serialization")


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
    there = json("Job", "The job of this id that is there")
    new = json("Job", "Accepted: it will end, whatever happens to the service")
    return _operation(
        "createJob", "Generate later", there, further={202: new}, errors=SUBMITTING, body=body
    )


def _list() -> Schema:
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50}
    return _operation(
        "listJobs",
        "Your jobs, newest first",
        "Jobs",
        errors=(*LOOKING, 400),
        parameters=[
            query("state", STATE, "Only these"),
            query("webhook", DELIVERY, "Only those whose webhook is so far"),
            query("limit", limit, "Jobs per page"),
            query("prefix", PREFIX, "Only ids that begin so"),
            query("cursor", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "From `next`"),
        ],
    )


def _one(id: str, summary: str) -> Schema:
    return _operation(id, summary, "Job", errors=FINDING, parameters=[ID])


def _events() -> Schema:
    text = "`progress` events, and one last named by the final state, with the job"
    every = {"type": "integer", "minimum": 0, "maximum": MAX_STEPS, "default": 0}
    return _operation(
        "streamJobEvents",
        "Progress as server-sent events",
        events(text),
        errors=(*FINDING, 400),
        parameters=[
            ID,
            query("preview_every", every, "A preview every so many steps; 0: none"),
            *SIGNED,
        ],
    )


def _image() -> Schema:
    return _operation(
        "getJobImage",
        "An image of a job that has succeeded",
        file("The image", *IMAGE_KINDS),
        errors=(*FINDING, 409),
        parameters=[ID, path_field("index", "From 0"), *SIGNED],
    )
