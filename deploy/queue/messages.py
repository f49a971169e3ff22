"""Both request forms of the queue, and what they become.

`v1alpha2` is `{"task": {"metadata": {...}, "content": {...}}}`; `v1alpha1` is a flat WebUI body
with `alwayson_scripts` beside it. Either ends as a `Task`, whose content is in the WebUI's names
and whose `parameters` are ours. Imports no torch: the front door runs on AWS Lambda.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from deploy.queue.extras import Extras
from deploy.queue.webui import Content
from runnables.errors import InvalidInput
from runnables.parameters import MAX_SEED, MODELS, AnyParameters
from runnables.parameters import Task as Kind

LEGACY = "legacy"  # the runtime of v1alpha1 tasks, which are routed by their model's name
MAX_BYTES = 256 * 1024  # SNS refuses more

M = TypeVar("M", bound=BaseModel)

Form = Literal["v1alpha1", "v1alpha2"]
TaskType = Literal["text-to-image", "image-to-image", "inpaint", "extra-single-image"]
KINDS: Mapping[TaskType, Kind] = {
    "text-to-image": "txt2img",
    "image-to-image": "img2img",
    "inpaint": "inpaint",
    "extra-single-image": "upscale",
}
REFUSED: Mapping[str, str] = {
    "pipeline": "ComfyUI graphs are not run here",
    "extra-batch-image": "one image a task: send extra-single-image for each",
}

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
#: `.safetensors` files and Hub ids
ModelName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$"
    ),
]
#: folders in the bucket; none of them begins with a dot
Prefix = Annotated[
    str,
    StringConstraints(
        pattern=r"^$|^[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?$"
    ),
]


class Metadata(BaseModel):
    """Who asks for what, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    runtime: Name
    tasktype: TaskType
    prefix: Prefix = ""
    context: dict[str, Any] | str | None = Field(None, description="Echoed on completion.")


class Scripts(BaseModel):
    """v1alpha1's `alwayson_scripts`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    task: TaskType
    sd_model_checkpoint: ModelName
    id_task: Name
    uid: str | None = None
    save_dir: Prefix = ""
    image_link: str | None = None
    sd_vae: Literal["", "Automatic", "None", None] = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    controlnet: dict[str, Any] | None = None


class Task(BaseModel):
    """One task, whatever form it came in.

    Attributes:
        model: the model it names; None: whatever its runtime serves.
        content: in the WebUI's names, checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form
    metadata: Metadata
    content: Content | Extras
    model: str | None = None

    @property
    def digest(self) -> str:
        """12 hex digits of what decides the result: the same task always has the same."""
        decides = [
            self.metadata.model_dump(exclude={"context"}),
            self.content.model_dump(mode="json"),
            self.model,
        ]
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def kind(self) -> Kind:
        """Our name of the task type."""
        return KINDS[self.metadata.tasktype]

    def parameters(self) -> AnyParameters:
        """Ours. The seed follows from the task where none is given, so that a second delivery
        draws the same image.

        Raises:
            InvalidInput: naming the field as the caller wrote it.
        """
        values, model = self.content.values(), MODELS[self.kind]
        values.setdefault("seed", int(self.digest, 16) % (MAX_SEED - 8))
        known = {name: value for name, value in values.items() if name in model.model_fields}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            raise _complaint(error, self.form) from error

    def message(self) -> str:
        """What is published: `{"metadata", "content"}`, as the reference system's."""
        content = self.content.model_dump(mode="json", exclude_unset=True)
        if self.model:
            content["alwayson_scripts"] = {"sd_model_checkpoint": self.model}
        metadata = self.metadata.model_dump(mode="json", exclude_none=True)
        return json.dumps({"metadata": metadata, "content": content})


def read(body: Mapping[str, Any]) -> Task:
    """A request at the front door, in either form.

    Raises:
        InvalidInput: naming the field.
    """
    return from_v1alpha2(body) if "task" in body else from_v1alpha1(body)


def from_v1alpha2(body: Mapping[str, Any]) -> Task:
    """`{"task": {"metadata", "content"}}`."""
    task = body.get("task")
    if set(body) != {"task"} or not isinstance(task, dict):
        raise InvalidInput("the body must be an object with the one field task", loc=("task",))
    _refuse_unknown(task, {"metadata", "content"}, ("task",))
    return _task(task.get("metadata"), task.get("content"), ("task",))


def from_v1alpha1(body: Mapping[str, Any]) -> Task:
    """A flat WebUI body with `alwayson_scripts`."""
    given = body.get("alwayson_scripts")
    _refuse_type(given.get("task") if isinstance(given, dict) else None, "alwayson_scripts", "task")
    scripts = _parse(Scripts, given, ("alwayson_scripts",))
    _refuse_controlnet(scripts.controlnet, ("alwayson_scripts", "controlnet"))
    content = {name: value for name, value in body.items() if name != "alwayson_scripts"}
    if scripts.image_link:
        content["image_link"] = scripts.image_link
    if scripts.override_settings:
        content.setdefault("override_settings", scripts.override_settings)
    metadata = Metadata(
        id=scripts.id_task,
        runtime=LEGACY,
        tasktype=scripts.task,
        prefix=scripts.save_dir.rstrip("/"),
        context={"uid": scripts.uid} if scripts.uid else None,
    )
    return _checked(
        Task(
            form="v1alpha1",
            metadata=metadata,
            content=_parse(_content_of(scripts.task), content, ()),
            model=scripts.sd_model_checkpoint,
        )
    )


def from_queue(text: str) -> Task:
    """A queue message's body: `{"metadata", "content"}`, bare or in SNS's envelope.

    Raises:
        InvalidInput: naming the field.
    """
    body = parse_object(text)
    if body.get("Type") == "Notification" and isinstance(body.get("Message"), str):
        body = parse_object(body["Message"])
    _refuse_unknown(body, {"metadata", "content"}, ())
    content = body.get("content")
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.get("runtime") == LEGACY:
        return _from_legacy_message(metadata, content)
    return _task(metadata, content, ())


def _from_legacy_message(metadata: dict[str, Any], content: Any) -> Task:
    """What v1alpha1 became when it was published, by us or by the reference system."""
    if not isinstance(content, dict) or not isinstance(content.get("alwayson_scripts"), dict):
        raise InvalidInput("a legacy task names its model", loc=("content", "alwayson_scripts"))
    named = {"id": "id_task", "tasktype": "task", "prefix": "save_dir"}
    scripts = {new: metadata[old] for old, new in named.items() if old in metadata}
    context = metadata.get("context")
    if isinstance(context, dict) and isinstance(context.get("uid"), str):
        scripts["uid"] = context["uid"]
    return from_v1alpha1(
        {**content, "alwayson_scripts": {**content["alwayson_scripts"], **scripts}}
    )


def _task(metadata: Any, content: Any, loc: tuple[str, ...]) -> Task:
    if isinstance(metadata, dict):
        _refuse_type(metadata.get("tasktype"), *loc, "metadata", "tasktype")
    if not isinstance(content, dict):
        raise InvalidInput("content must be an object", loc=(*loc, "content"))
    content = dict(content)
    scripts = content.pop("alwayson_scripts", None) or {}
    where = (*loc, "content", "alwayson_scripts")
    if not isinstance(scripts, dict):
        raise InvalidInput("alwayson_scripts must be an object", loc=where)
    _refuse_unknown(scripts, {"sd_model_checkpoint", "image_link", "controlnet"}, where)
    _refuse_controlnet(scripts.get("controlnet"), (*where, "controlnet"))
    if "image_link" in scripts:
        content.setdefault("image_link", scripts["image_link"])
    parsed_metadata = _parse(Metadata, metadata, (*loc, "metadata"))
    parsed = _parse(_content_of(parsed_metadata.tasktype), content, (*loc, "content"))
    return _checked(
        _parse(
            Task,
            {
                "form": "v1alpha2",
                "metadata": parsed_metadata,
                "content": parsed,
                "model": scripts.get("sd_model_checkpoint") or parsed.model_override,
            },
            where,
        )
    )


def _content_of(tasktype: TaskType) -> type[Content] | type[Extras]:
    return Extras if tasktype == "extra-single-image" else Content


def _checked(task: Task) -> Task:
    """Refuse what no worker could draw: wrong parameters, no input image."""
    task.parameters()
    links = task.content.links()
    if task.kind != "txt2img" and len(links) != 1:
        raise InvalidInput(
            f"{task.metadata.tasktype} takes one input image, not {len(links)}", loc=("image_link",)
        )
    if task.kind == "txt2img" and links:
        raise InvalidInput("text-to-image takes no input image", loc=("image_link",))
    if (task.kind == "inpaint") != (task.content.mask is not None):
        raise InvalidInput("a mask is for inpaint, which needs one", loc=("mask",))
    return task


def _parse(model: type[M], value: Any, loc: tuple[str, ...]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = (*loc, *first["loc"])
        name = ".".join(map(str, where)) or "body"
        raise InvalidInput(f"{name}: {first['msg']}", loc=where) from error


def _complaint(error: ValidationError, form: Form) -> InvalidInput:
    """Of our parameters, in the caller's names."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = Content.theirs(".".join(map(str, first["loc"]))) if first["loc"] else "content"
    loc = ("task", "content", name) if form == "v1alpha2" else (name,)
    return InvalidInput(f"{name}: {first['msg']}", loc=loc)


def parse_object(text: str) -> dict[str, Any]:
    """JSON text that must be an object.

    Raises:
        InvalidInput: it is not.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}", loc=("body",)) from error
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object", loc=("body",))
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_unknown(value: Mapping[str, Any], known: set[str], loc: tuple[str, ...]) -> None:
    for name in value:
        if name not in known:
            raise InvalidInput(f"{name} is not a field here", loc=(*loc, name))


def _refuse_type(tasktype: object, *loc: str) -> None:
    if isinstance(tasktype, str) and tasktype in REFUSED:
        raise InvalidInput(f"{tasktype}: {REFUSED[tasktype]}", loc=loc)


def _refuse_controlnet(controlnet: Any, loc: tuple[str, ...]) -> None:
    units = controlnet.get("args") if isinstance(controlnet, dict) else None
    if any(isinstance(unit, dict) and unit.get("enabled", True) for unit in units or ()):
        raise InvalidInput("ControlNet is not served by the queue", loc=loc)
