"""Listeners hear of their own requests."""

from __future__ import annotations

import asyncio

from PIL import Image

from api.progress.live import Hub
from api.progress.requests import Requests
from runnables.parameters import TextToImage
from runnables.ticket import Progress, Ticket

WANTED = TextToImage(prompt="x", seed=1)


def test_requests_of_one_id_do_not_get_each_others_previews() -> None:
    """A mesh wants one id to be passed on to all requests that belong to one of its own."""
    hub = Hub()
    known = Requests(hub)
    lives = [known.begin("me", "a") for _ in range(2)]
    tickets = [Ticket(WANTED, id, progress=Progress("drawing", 0, 4)) for id in "12"]
    for live, ticket in zip(lives, tickets, strict=True):
        known.follow(live, ticket)
    previews = [Progress("drawing", 1, 4, preview=Image.new("RGB", (8, 8))) for _ in range(2)]

    async def run() -> None:
        with (
            hub.listening(("me", "1"), 1) as own,
            hub.listening(("me", "2"), 2),
            hub.listening(("me", "a"), 1) as latest,
        ):
            lives[0].on_step(previews[0])
            lives[1].on_step(previews[1])
            assert own.take_preview() is previews[0]
            assert latest.take_preview() is previews[1], "the id is that of the latest request"
        with hub.listening(("me", "1"), 3):
            lives[0].on_step(previews[0])
            lives[1].on_step(previews[1])
        assert [ticket.preview_every for ticket in tickets] == [3, 0]

    asyncio.run(run())
