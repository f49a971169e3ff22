"""This module fetches from the Hub only the files a pipeline is loaded from, at one commit.

The Hub's address and token are settings of huggingface_hub: HF_ENDPOINT, HF_TOKEN, HF_HOME,
HF_HUB_OFFLINE.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnables.checkpoints import layout


class Unreachable(Exception):
    """The Hub, the repository or the revision cannot be reached, as the message says."""


@dataclass(frozen=True)
class Plan:
    """A plan says what will be fetched.

    Attributes:
        commit: 40 hexadecimal digits.
        sizes: file -> bytes.
        sha256: file -> hexadecimal digest, of the large files, for which the Hub knows it.
    """

    repository: str
    commit: str
    sizes: dict[str, int]
    sha256: dict[str, str]


def plan(
    repository: str,
    revision: str | None = None,
    variant: Callable[[Mapping[str, Any]], str] = lambda _: "",
) -> Plan:
    """Ask the Hub which files a pipeline of this repository needs.

    Args:
        revision: a commit, tag or branch; None takes the newest.
        variant: what returns such as "fp16" for a model_index.json, taken where the repository has
            it.

    Raises:
        Unreachable: the Hub, the repository or the revision cannot be reached.
        layout.Incomplete: the repository is no diffusers model, or holds no safetensors.
    """
    from huggingface_hub import HfApi

    with _as_unreachable(repository):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or []}
    if info.sha is None or layout.INDEX not in files:
        raise layout.Incomplete(f"{repository} has no {layout.INDEX}: not a diffusers model")
    index = _index(repository, revision)
    names = layout.needed(files, index, variant(index))
    return Plan(
        repository,
        info.sha,
        {name: files[name].size or 0 for name in names},
        {name: lfs.sha256 for name in names if (lfs := files[name].lfs)},
    )


def fetch(planned: Plan, folder: Path | None = None) -> Path:
    """Fetch into a folder, or into huggingface_hub's cache; skip what is there already.

    Raises:
        Unreachable: the Hub, the repository or the revision cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with _as_unreachable(planned.repository):
        path = snapshot_download(
            planned.repository,
            revision=planned.commit,
            local_dir=folder,
            allow_patterns=list(planned.sizes),
        )
    return Path(path)


def cached(repository: str, revision: str | None = None) -> Path | None:
    """Return the cached folder of what was fetched before, without using a network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, layout.INDEX, revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def _index(repository: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    with _as_unreachable(
        repository
    ):  # by its revision, so that `cached` finds it by that name again
        path = Path(hf_hub_download(repository, layout.INDEX, revision=revision))
    index: dict[str, Any] = json.loads(path.read_text())
    return index


@contextmanager
def _as_unreachable(repository: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the client raises a dozen kinds; all mean the same here
        raise Unreachable(f"{repository} could not be fetched from the Hub: {error}") from error
