"""A ticket becomes the kind of work that its parameters ask for."""

from __future__ import annotations

from runnables.engine import denoise, enlarge
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.work import Work
from runnables.parameters import Upscale
from runnables.ticket import Inputs, Ticket


def plan(model: LoadedModel, ticket: Ticket, inputs: Inputs) -> Work:
    """Decide everything about a request, and load nothing that it names but an upscaler.

    Raises:
        InvalidInput: (400, 404, 413) naming the field that cannot be served.
    """
    if isinstance(ticket.parameters, Upscale):
        return enlarge.plan(model, ticket, inputs)
    return denoise.plan(model, ticket, inputs)
