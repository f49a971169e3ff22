"""A model is imported into models/: copied or fetched aside, checked, and then moved into place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from runnables.checkpoints import hub, layout, manifest
from runnables.checkpoints.catalog import FOLDER, entry_of

NAME = re.compile(r"\w[\w.-]*")


class ImportFailed(Exception):
    """The source cannot be imported; the message says why."""


def import_model(
    source: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    variant: str = "",
    into: Path = FOLDER,
) -> Path:
    """Import a local diffusers folder, a catalog name, or a Hub id.

    Only the files a pipeline needs are taken. What was fetched before an interruption is kept aside
    and used by the next try.

    Args:
        name: the new folder's name; default: the source's last part.
        revision: a Hub commit, tag or branch; may be written as `owner/name@revision`, too.
        variant: such as "fp16": half the bytes, where the source has it.

    Returns:
        The model's folder, with manifest.json and, for catalog models, profile.json.

    Raises:
        ImportFailed: the name is taken, or the source is no whole diffusers model or out of reach.
    """
    source, _, at = (source, "", "") if Path(source).is_dir() else source.partition("@")
    target = _target(into, Path(source).resolve().name if name is None else name)
    try:
        if Path(source).is_dir():
            aside = _copy(Path(source), target, variant)
        else:
            aside = _fetch(source, revision or at or None, target, variant)
    except (layout.Incomplete, manifest.Damaged, hub.Unreachable) as error:
        raise ImportFailed(str(error)) from error
    return aside.rename(target)


def _target(into: Path, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise ImportFailed(f"{name!r} cannot name a model: letters, digits, '_', '-' and '.' only")
    into.mkdir(parents=True, exist_ok=True)
    target = into / name
    if target.exists():
        raise ImportFailed(f"{target} exists; remove it or choose another --name")
    return target


def _copy(source: Path, target: Path, variant: str) -> Path:
    """Copy a folder aside, after comparing it with its own manifest where it has one."""
    index = source / layout.INDEX
    if not index.is_file():
        raise ImportFailed(f"{source} has no {layout.INDEX}: not a diffusers model")
    manifest.verify(source)
    present = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    names = layout.needed(present, json.loads(index.read_text()), variant)
    names += [name for name in present if name == "profile.json"]
    _require_room(target.parent, sum((source / name).stat().st_size for name in names))
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _copy_files(source, aside, names)
        _check_weights(aside)
        manifest.write(aside, source=source.resolve().name)
    except BaseException:  # also when interrupted: nothing is left behind
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _copy_files(source: Path, folder: Path, names: list[str]) -> None:
    from tqdm import tqdm

    for name in tqdm(names, "copy", unit="file"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _fetch(source: str, revision: str | None, target: Path, variant: str) -> Path:
    """Fetch aside, into a folder of this very commit, so that a second try goes on with it."""
    entry = entry_of(source)
    repository = entry.repository if entry else source
    known = entry.revision if entry else None
    planned = hub.plan(repository, revision or known, lambda _: variant)
    _require_room(target.parent, sum(planned.sizes.values()))
    stem = "-".join(filter(None, [target.name, planned.commit[:12], variant]))
    aside = hub.fetch(planned, target.with_name(f".{stem}.partial"))
    shutil.rmtree(aside / ".cache", ignore_errors=True)
    _check_weights(aside)
    if entry and entry.defaults:
        (aside / "profile.json").write_text(json.dumps(dict(entry.defaults), indent=1) + "\n")
    written = manifest.write(aside, source=repository, revision=planned.commit)
    for name, digest in planned.sha256.items():
        if written["files"][name]["sha256"] != digest:
            shutil.rmtree(aside)
            raise ImportFailed(f"{repository}: {name} arrived damaged: its SHA-256 differs")
    return aside


def _require_room(into: Path, size: int) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        raise ImportFailed(f"{size / 1e9:.1f} GB are needed in {into}, {free / 1e9:.1f} are free")


def _check_weights(folder: Path) -> None:
    for path in sorted(folder.rglob("*.safetensors")):
        layout.check_complete(path)
