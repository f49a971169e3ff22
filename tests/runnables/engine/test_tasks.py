"""Errands take turns: the most urgent first, and half of the time where something is drawn."""

from __future__ import annotations

from runnables.engine.tasks import Errand, Errands


class Asked:
    """A request as far as errands look at it."""

    def __init__(self, urgency: float) -> None:
        self.urgency = urgency


def test_half_of_the_time_belongs_to_steps() -> None:
    errands = Errands()
    assert errands.due(drawing=True) is None
    late, soon = (
        Errand(Asked(urgency), iter(()), print)  # type: ignore[arg-type]
        for urgency in (2.0, 1.0)
    )
    errands.add(late)
    errands.add(soon)
    assert errands.due(drawing=True) is soon
    errands.took(1.0)
    assert errands.due(drawing=True) is None
    assert errands.due(drawing=False) is soon
    errands.drew(0.6)
    assert errands.due(drawing=True) is None
    errands.drew(0.6)
    assert errands.due(drawing=True) is soon
    errands.drop_all(soon.request)
    assert errands.due(drawing=True) is late
