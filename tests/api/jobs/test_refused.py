"""Jobs that the engine refuses: they wait on, and keep nobody else's waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.jobs import runner
from runnables.errors import NotReady, OverCapacity, StableDiffusionError
from runnables.ticket import Caller, Ticket
from tests.api.jobs.conftest import Client
from tests.api.jobs.test_faults import parts_of

Refuse = Callable[[Caller], StableDiffusionError | None]
Refusing = Callable[[Refuse], Client]
ONE, TWO = {"x-api-key": "one"}, {"x-api-key": "two"}


@pytest.fixture(params=["at once", "later"])
def refusing(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Refusing:
    """refusing(refuse) is a client; `refuse` returns the error of a caller's job, or None.

    The engine refuses at once, or later by the ticket's future, as Ray's replicas do.
    """

    def begin(refuse: Refuse) -> Client:
        client = make(begin=False, api_keys="one,two")
        real = client.api.runnable.submit

        def submit(parameters: Any, *given: Any, caller: Caller, **options: Any) -> Ticket:
            error = refuse(caller)
            if error is None:
                return real(parameters, *given, caller=caller, **options)
            if request.param == "at once":
                raise error
            ticket = Ticket(parameters)
            ticket.future.set_exception(error)
            return ticket

        monkeypatch.setattr(client.api.runnable, "submit", submit)
        client.api.start()
        return client

    return begin


def send(client: Client, key: dict[str, str]) -> str:
    client.http.headers.update(key)
    return str(client.post()["id"])


@pytest.mark.parametrize("error", [OverCapacity("busy"), NotReady("going away")], ids=repr)
def test_a_refused_job_goes_on_once_there_is_room(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, error: StableDiffusionError
) -> None:
    monkeypatch.setattr(runner, "PAUSE_S", 0.01)
    refusals = [error] * 2 * runner.ATTEMPTS
    client = refusing(lambda caller: refusals.pop() if refusals else None)
    job = client.until(send(client, ONE), "succeeded", "failed", "cancelled")
    assert job["state"] == "succeeded", job
    attempts = "SELECT attempts FROM jobs"
    (row,) = parts_of(client).store._connection.execute(attempts).fetchall()
    assert row["attempts"] == 1, "a refusal is no attempt"


def test_a_refused_job_keeps_no_other_keys_waiting(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PAUSE_S", 3600.0)
    callers: list[Caller] = []

    def refuse(caller: Caller) -> StableDiffusionError | None:
        callers.append(caller)
        return OverCapacity("busy") if caller == callers[0] else None

    client = refusing(refuse)
    waits = send(client, ONE)
    for _ in range(3):
        client.until(send(client, TWO), "succeeded", timeout=300)
    client.http.headers.update(ONE)
    assert client.get(waits)["state"] == "queued"
    assert callers.count(callers[0]) == 1, "it is submitted again after the pause"
