"""What a job's body may say, and what it means where it says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.jobs.submission import JobRequest, checked


def wanted(parameters: dict[str, Any] | None = None, **body: Any) -> JobRequest:
    given = {"task": "txt2img", "parameters": {"prompt": "x", **(parameters or {})}, **body}
    return JobRequest.model_validate(given)


@pytest.mark.parametrize(
    ("own", "of_parameters", "priority"),
    [(None, "low", 2), (None, "normal", 5), (None, "high", 8), (0, "high", 0), (9, "low", 9)],
)
def test_a_job_has_its_own_priority_or_that_of_its_parameters(
    own: int | None, of_parameters: str, priority: int
) -> None:
    request = wanted({"priority": of_parameters}, priority=own)
    assert checked(request, {}, ()).priority == priority


def test_a_deadline_is_at_most_thirty_days() -> None:
    month = 30 * 24 * 3600
    assert wanted(deadline_s=month).deadline_s == month
    for wrong in (0, -1, month + 1):
        with pytest.raises(ValidationError):
            wanted(deadline_s=wrong)
