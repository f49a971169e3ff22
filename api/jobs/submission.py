"""The body of `POST /jobs`: JSON, or multipart with that JSON in `data` and images beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from api.http import forms
from api.http.request_id import ID
from api.http.validation import validated
from runnables.errors import InvalidInput, Loc
from runnables.parameters import MODELS, AnyParameters, Task
from runnables.settings import Settings

MAX_DEADLINE_S = 30 * 86400
#: the priority of a job that names none, by that of its parameters
PRIORITIES = {"low": 2, "normal": 5, "high": 8}


class JobRequest(BaseModel):
    """The JSON of `POST /jobs`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: Task = Field(description="Which endpoint's parameters these are.")
    parameters: dict[str, Any] = Field(description="As that endpoint takes them.")
    id: str | None = Field(
        None,
        pattern=f"^{ID.pattern}$",
        description="The job's name, chosen by the client: sent again with the same body, it "
        "returns the job that is there; with another body it is refused (409).",
    )
    webhook: str | None = Field(
        None,
        max_length=2000,
        description="An https URL that gets the job document when the job has ended.",
    )
    priority: int | None = Field(
        None,
        ge=0,
        le=9,
        description="Higher goes first; one level is worth a minute of waiting. "
        "Default: that of `parameters.priority` (low 2, normal 5, high 8).",
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="The job fails when it is not finished so many seconds after it was accepted.",
    )


@dataclass(frozen=True)
class Submission:
    """A valid request for a job."""

    request: JobRequest
    parameters: AnyParameters
    images: dict[str, Image.Image]

    @property
    def controls(self) -> list[Image.Image]:
        """The control images among the images."""
        return [
            self.images[name] for name in control_names(len(self.images)) if name in self.images
        ]

    @property
    def priority(self) -> int:
        """The job's own priority, else one for the priority of its parameters."""
        own = self.request.priority
        return PRIORITIES[self.parameters.priority] if own is None else own

    @property
    def deadline_s(self) -> float | None:
        """The job's own deadline, else that of its parameters."""
        return self.request.deadline_s or self.parameters.deadline_s

    def fingerprint(self) -> str:
        """Return a digest of the body as sent and of the pixels: equal requests have the same."""
        body = self.request.model_dump(exclude={"id"}, exclude_unset=True)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
        for name, image in sorted(self.images.items()):
            digest.update(f"{name} {image.mode} {image.size}".encode())
            digest.update(image.tobytes())
        return digest.hexdigest()


def control_names(count: int) -> list[str]:
    """Return the names of a job's control images among its files."""
    return [f"{forms.CONTROL}-{i}" for i in range(count)]


async def read(request: Request, settings: Settings) -> Submission:
    """Read and validate a request.

    Raises:
        InvalidInput, UnsupportedImage, PayloadTooLarge: Something is wrong; the field is named.
    """
    if forms.content_type(request) != "multipart/form-data":
        forms.expect_json(request)
        wanted = forms.parse(JobRequest, await request.body())
        return checked(wanted, {}, ())
    async with forms.parts(request) as form:
        data = await forms.text(form.get("data"))
        wanted = forms.parse(JobRequest, data, "data")
        names = forms.files_of(MODELS[wanted.task])
        forms.check_names(form, {*names, forms.CONTROL, "data"})
        images = {name: await forms.image(form.get(name), name, settings) for name in names}
        controls = await forms.control_images(form, settings)
        images |= zip(control_names(len(controls)), controls, strict=True)
        return checked(wanted, images, ("data",))


def checked(request: JobRequest, images: dict[str, Image.Image], loc: Loc) -> Submission:
    """Return a request with its images, its parameters checked. It raises what `read` raises."""
    model = MODELS[request.task]
    parameters = validated(model, request.parameters, (*loc, "parameters"))
    for name in forms.files_of(model):
        if name not in images:
            raise InvalidInput(
                f"{name} is missing: send multipart/form-data with parts data and {name}",
                loc=(name,),
            )
    return Submission(request, parameters, images)
