"""Keeps a random sample of a cosmic-ray session: one mutant each of so many places.

    python tests/mutants.py SESSION --count 100 --seed 29

Places that only words or types have are left out (docstrings have no mutants): annotations, base
classes, `__repr__`, what is logged, and the arguments of exceptions that are raised. So are
mutants that are not Python, which the tool makes of a bare `*` among parameters, and those that it
cannot make: another exception in the place of a dotted name, or of a list with one.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.tools.filters.filter_app import FilterApp
from cosmic_ray.work_item import WorkerOutcome, WorkResult

LOGGERS = ("log", "logger")
GENERIC = ("deque", "dict", "list", "set", "tuple")  # as in list[int](), which is a type


def types(node: ast.AST) -> list[ast.AST | None]:
    """Return the parts of a node that are types."""
    match node:
        case ast.AnnAssign() | ast.arg():
            return [node.annotation]
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [node.returns]
        case ast.ClassDef():
            return [*node.bases]
        case ast.Subscript(value=ast.Name(id=name)) if name in GENERIC:
            return [node]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(op=ast.BitOr())):
            return [node] if name.istitle() else []  # a union of types
    return []


def words(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a node that only somebody who reads them notices."""
    match node:
        case ast.FunctionDef(name="__repr__" | "__str__"):
            return [node]
        case ast.Raise(exc=ast.Call(args=arguments)):
            return [*arguments]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in LOGGERS:
            return [node]
    return []


def spans(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [
        ((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset))  # type: ignore[attr-defined]
        for node in ast.walk(ast.parse(path.read_text()))
        for one in (*types(node), *words(node))
        if one is not None
    ]


def is_python(path: Path, operator: str, occurrence: int) -> bool:
    try:
        code = mutate_code(path.read_text(), get_operator(operator)(), occurrence)
        compile(code, path, "exec")
    except (AttributeError, SyntaxError):  # the first from the tool, at a dotted name
        return False
    return True


class Sample(FilterApp):
    """A filter, as the tool's own are."""

    def add_args(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=40)
        parser.add_argument("--seed", type=int, default=15)

    def filter(self, work_db: Any, args: argparse.Namespace) -> None:
        skipped, places = dict[Path, Any](), defaultdict[Any, list[Any]](list)
        items = work_db.work_items
        for item in items:
            (one,) = item.mutations
            path, start, end = one.module_path, tuple(one.start_pos), tuple(one.end_pos)
            ranges = skipped.setdefault(path, spans(path))
            if not any(low <= start < high for low, high in ranges):
                mutant = one.operator_name, one.occurrence, item.job_id
                places[path, start, end].append(mutant)
        chance, kept = random.Random(args.seed), set[str]()
        for place in chance.sample(sorted(places), len(places)):
            mutants = chance.sample(sorted(places[place]), len(places[place]))
            sound = (id for name, nth, id in mutants if is_python(place[0], name, nth))
            kept.update([id] if (id := next(sound, None)) else [])
            if len(kept) == args.count:
                break
        print(f"{len(kept)} of {len(places)} places, {len(items)} mutants")
        left_out = WorkResult(output="not sampled", worker_outcome=WorkerOutcome.SKIPPED)
        others = [one.job_id for one in items if one.job_id not in kept]
        work_db.set_multiple_results(others, left_out)


if __name__ == "__main__":
    sys.exit(Sample().main())
