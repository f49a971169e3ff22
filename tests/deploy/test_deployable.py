"""The image's Dockerfile: BentoML's, with its build tools left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd_bentoctl.deployable import BENTO, TOOLS, create_deployable, two_stages

#: The shape of what bentoml 1.4.39 writes; tests/deploy/test_adaptations.py has the real one.
GENERATED = f"""\
FROM python:3.11-slim AS base-container
RUN useradd bentoml
ARG SD_PRECISION=fp16
ENV SD_PRECISION=$SD_PRECISION
{TOOLS} && apt-get install -y build-essential git
RUN uv pip install -r requirements.txt
{BENTO}
USER bentoml
ENTRYPOINT ["entrypoint.sh"]
"""


def test_the_final_stage_has_no_build_tools() -> None:
    first, final = two_stages(GENERATED).split("\nFROM python:3.11-slim\n")
    assert "build-essential" in first
    assert "uv pip install" in first
    assert BENTO not in first
    for word in ("build-essential", "uv pip"):
        assert word not in final
    for line in ("RUN useradd bentoml", "ENV SD_PRECISION=$SD_PRECISION", BENTO, "USER bentoml"):
        assert line in final.splitlines()
    assert "COPY --from=base-container /app /app" in final


def test_a_dockerfile_of_another_make_stays_as_it_is() -> None:
    assert two_stages("FROM scratch\nCOPY . .\n") == "FROM scratch\nCOPY . .\n"


def test_a_bento_without_dockerfile_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build the Bento again"):
        create_deployable(str(tmp_path), str(tmp_path), {})
