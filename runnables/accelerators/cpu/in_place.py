"""A traced call writes over what nobody reads again, and leaves out what changes nothing.

Each operator of a trace writes its output to other memory than it reads. Where nobody else reads
its input, the same operator in place gives the same bits and touches less memory. Diffusers divides
by an `output_scale_factor` that is 1 in most UNets, and calls dropout.
"""

from __future__ import annotations

from typing import Any

#: operators that have a form in place, which writes over the first input
IN_PLACE = {"aten::add", "aten::mul", "aten::silu"}
#: operators whose output is memory of its own; `prim::CallFunction` is a packed convolution
OWN = IN_PLACE | {"aten::group_norm", "aten::layer_norm", "aten::linear", "prim::CallFunction"}
#: operators whose output is the memory of their first input
SAME = {*(f"{kind}_" for kind in IN_PLACE), "aten::index_copy_"}


def write_in_place(graph: Any) -> None:
    """Change a graph of `torch.jit.trace`; the sizes it was traced with decide what fits."""
    for node in list(graph.nodes()):
        if _changes_nothing(node):
            node.output().replaceAllUsesWith(node.inputsAt(0))
            node.destroy()
    for node in list(graph.nodes()):
        if node.kind() not in IN_PLACE or not _is_free(node.inputsAt(0)):
            continue
        if node.inputsAt(0).type().sizes() == node.output().type().sizes():
            changed = graph.create(f"{node.kind()}_", list(node.inputs()), 1).insertBefore(node)
            changed.output().setType(node.output().type())
            node.output().replaceAllUsesWith(changed.output())
            node.destroy()


def _changes_nothing(node: Any) -> bool:
    if node.kind() == "aten::div":
        return _number(node.inputsAt(1)) == 1
    return node.kind() == "aten::dropout" and _number(node.inputsAt(2)) == 0  # not training


def _is_free(value: Any) -> bool:
    """Return whether a value's memory is its own, and read once more only."""
    kind = value.node().kind()
    own = kind in OWN or (kind in SAME and _is_free(value.node().inputsAt(0)))
    return own and len(value.uses()) == 1


def _number(value: Any) -> float | None:
    """Return a constant number; a trace has it as such, or as a tensor of one element."""
    node = value.node()
    if node.kind() == "prim::Constant" and node.hasAttribute("value"):
        kind = node.kindOf("value")
        if kind in ("i", "f"):
            return float(getattr(node, kind)("value"))
        if kind == "t" and node.t("value").numel() == 1:
            return float(node.t("value"))
    return None
