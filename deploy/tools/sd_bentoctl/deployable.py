"""The build context: the Bento as it is, models inside, its Dockerfile in two stages."""

from __future__ import annotations

from pathlib import Path

DOCKERFILE = Path("env/docker/Dockerfile")
#: Lines of BentoML's Dockerfile: where building begins, and where the Bento itself is copied in.
TOOLS = "RUN apt-get update"
BENTO = "COPY --chown=bentoml:bentoml . ./"


def create_deployable(
    bento_path: str, destination_dir: str, bento_metadata: dict[str, str], overwrite: bool = True
) -> str:
    """Part of bentoctl's contract with operators: the path of the build context.

    Our operators deploy the Bento's own image, so there is nothing to add to it.
    """
    if not (Path(bento_path) / DOCKERFILE).is_file():
        raise FileNotFoundError(f"{bento_path} has no {DOCKERFILE}; build the Bento again")
    return bento_path


def two_stages(dockerfile: str) -> str:
    """BentoML's Dockerfile, the compiler, git, uv and their caches left behind in a first stage.

    The final image has the same base, user, variables and entry point; only /app (the virtual
    environment, and a Python where uv had to fetch one) comes from the first stage. A Dockerfile of
    another make, which lacks the lines this relies on, is returned as it is.
    """
    head, tools, rest = dockerfile.partition(TOOLS)
    install, bento, tail = rest.partition(BENTO)
    if not tools or not bento:
        return dockerfile
    # the base's own name, so that both stages begin alike
    final = "\n".join(_final_line(line) for line in head.splitlines())
    environment = "COPY --from=base-container /app /app\nENV VIRTUAL_ENV=/app/.venv\n"
    path = "ENV PATH=/app/.venv/bin:${PATH}\n\n"
    return f"{head}{tools}{install}\n{final}\n{environment}{path}{bento}{tail}"


def _final_line(line: str) -> str:
    return line.rsplit(" AS ", 1)[0] if line.startswith("FROM ") else line
