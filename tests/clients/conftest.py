"""One real server for the clients of other APIs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.server import Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`bentoml serve service:svc` with the embedded model."""
    with serve(tmp_path_factory.mktemp("server") / "log") as running:
        yield running
