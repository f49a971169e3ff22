"""`python -m models` imports, lists, verifies and pushes models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from models import bucket
from models.fitting import DoesNotFit, fit
from runnables.accelerators.neuron.compilation import Compilation, CompilationFailed, compile_neuron
from runnables.checkpoints import manifest
from runnables.checkpoints.catalog import CATALOG, FOLDER
from runnables.checkpoints.importing import ImportFailed, import_model

ERRORS = (
    ImportFailed,
    manifest.Damaged,
    CompilationFailed,
    DoesNotFit,
    bucket.PushFailed,
    BotoCoreError,
    ClientError,
    ValueError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return the exit code: 0, or 1 with a message on standard error."""
    chosen = _parser().parse_args(arguments)
    try:
        COMMANDS[chosen.command](chosen)
    except ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where models live")
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="copy a folder or fetch from the Hub")
    importing.add_argument("source", help="a diffusers folder, a catalog name, or owner/name")
    importing.add_argument("--name", help="the folder's name; default: the source's last part")
    importing.add_argument("--revision", help="a Hub commit, tag or branch")
    importing.add_argument(
        "--variant", default="", help="such as fp16: half the bytes, where the source has it"
    )
    listing = commands.add_parser("list", help="the models that are here, or in a bucket")
    listing.add_argument("bucket", nargs="?", help="s3://bucket/folder/")
    pushing = commands.add_parser("push", help="upload a model to a bucket; goes on where it was")
    pushing.add_argument("name")
    pushing.add_argument("bucket", help="s3://bucket/folder/")
    verifying = commands.add_parser("verify", help="compare a model with its manifest")
    verifying.add_argument("name")
    commands.add_parser("catalog", help="the models that `import` knows by name")
    fitting = commands.add_parser("fit", help="whether a model fits a card, and how")
    fitting.add_argument("name", help="a name from the catalog, or a diffusers folder")
    fitting.add_argument("--gpu", type=float, required=True, help="GB of the card's memory")
    fitting.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp16")
    fitting.add_argument("--quantize", default="", help="as SD_QUANTIZE")
    compiling = commands.add_parser("compile-neuron", help="compile for Inferentia2")
    compiling.add_argument("source", help="a diffusers folder or Hub id")
    compiling.add_argument("into", type=Path, help="the folder to write")
    compiling.add_argument(
        "--size", type=_size, action="append", help="such as 512x512; may repeat"
    )
    compiling.add_argument("--rows", type=int, default=4, help="denoiser rows per step, even")
    compiling.add_argument("--cast", choices=("none", "matmul", "all"), default="matmul")
    compiling.add_argument("--instance", choices=("inf2", "trn1", "trn1n", "trn2"), default="inf2")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def _compile(chosen: argparse.Namespace) -> None:
    sizes = tuple(chosen.size or [(512, 512)])
    what = Compilation(chosen.source, sizes, chosen.rows, chosen.cast, chosen.instance)
    folder = compile_neuron(what, chosen.into)
    print(f"compiled to {folder}; serve it with SD_DEVICE=neuron SD_MODEL={folder}")


def _import(chosen: argparse.Namespace) -> None:
    folder = import_model(
        chosen.source,
        name=chosen.name,
        revision=chosen.revision,
        variant=chosen.variant,
        into=chosen.folder,
    )
    print(f"imported to {folder}; serve it with SD_MODEL={folder}")


def _list(chosen: argparse.Namespace) -> None:
    if chosen.bucket:
        for name, size, state in bucket.listed(bucket.Location.of(chosen.bucket), _s3()):
            print(f"{name:24} {size / 1e6:10.1f} MB   {state}")
        return
    for index in sorted(chosen.folder.glob("*/model_index.json")):
        folder = index.parent
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        print(f"{folder.name:24} {size / 1e6:10.1f} MB   {_state(folder)}")


def _state(folder: Path) -> str:
    try:
        whole = manifest.verify(folder, hashes=False)
    except manifest.Damaged as error:
        return f"damaged: {error}"
    return "whole" if whole else "no manifest"


def _push(chosen: argparse.Namespace) -> None:
    where = bucket.Location.of(chosen.bucket)
    sent = bucket.push(chosen.folder / chosen.name, where, _s3())
    print(
        f"{chosen.name}: {sent} files sent; all are at s3://{where.bucket}/{where.key(chosen.name)}"
    )


def _s3() -> Any:
    import boto3

    return boto3.client("s3")


def _verify(chosen: argparse.Namespace) -> None:
    if not manifest.verify(chosen.folder / chosen.name):
        raise manifest.Damaged(f"{chosen.name} has no {manifest.NAME}")
    print(f"{chosen.name}: every file is as it was imported")


def _catalog(chosen: argparse.Namespace) -> None:
    for name, entry in CATALOG.items():
        print(
            f"{name:20} {entry.gigabytes:5.1f} GB  {entry.family:28} "
            f"{entry.repository:50} {entry.licence}"
        )


def _fit(chosen: argparse.Namespace) -> None:
    print(f"{chosen.name} on {chosen.gpu:g} GB in {chosen.precision}")
    for line in fit(chosen.name, chosen.gpu, chosen.precision, chosen.quantize):
        print(f"  {line}")


COMMANDS = {
    "import": _import,
    "list": _list,
    "push": _push,
    "verify": _verify,
    "catalog": _catalog,
    "fit": _fit,
    "compile-neuron": _compile,
}

if __name__ == "__main__":
    sys.exit(main())
