"""Where a task's objects lie in the bucket. Every name follows from the task alone."""

from __future__ import annotations

from hosts.queue.messages import Task


def folder(prefix: str, id: str) -> str:
    """`prefix/id`, or `id` alone."""
    return "/".join(part for part in (prefix.strip("/"), id) if part)


def image(task: Task, number: int) -> str:
    """The n-th image, from 0."""
    return f"{_base(task)}-{number}.png"


def manifest(task: Task) -> str:
    """The outcome of the task (JSON). The first one written is the truth."""
    return f"{_base(task)}.out"


def claim(prefix: str, id: str) -> str:
    """Written at the front door: which task this id stands for."""
    return f"{folder(prefix, id)}/{id}.task"


def cancelled(prefix: str, id: str) -> str:
    """Exists once the task has been cancelled."""
    return f"{folder(prefix, id)}/{id}.cancel"


def handed_back(message: str, received: int | None = None) -> str:
    """Written when a delivery is handed back unfinished; without a number, what all begin with."""
    return f".handed-back/{message}/{'' if received is None else received}"


def _base(task: Task) -> str:
    one = task.metadata
    return f"{folder(one.prefix, one.id)}/{one.id}-{task.digest}"
