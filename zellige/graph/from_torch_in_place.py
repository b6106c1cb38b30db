"""Operators that write in place, as plain ones, where a look at the program shows that nothing else reads what they write over.

PyTorch makes any program plain, but traces it once more to do so, which takes longer than everything else on the way in. Most
networks change only what nobody reads again: ReLU(inplace=True) behind a batch norm, the sum that ends a residual block. Then the
same program with other operators computes the same.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram

from zellige.graph.aten_elementwise import ELEMENTWISE
from zellige.graph.aten_layers import LAYERS
from zellige.graph.aten_table import ATEN
from zellige.graph.aten_windows import WINDOWS
from zellige.graph.from_torch_trace import expandable
from zellige.graph.from_torch_walk import operator_name

NEW_MEMORY = frozenset({*WINDOWS, *LAYERS, *ELEMENTWISE, "cat.default", "stack.default"})
"""Operators whose result shares no memory with what they read."""

UNCHANGING = frozenset({"dropout_.default"})
"""Operators that write nothing, for they have a row outside of training alone."""

COMPARING = frozenset({"eq_", "ne_", "ge_", "gt_", "le_", "lt_"})
"""In place they write numbers, else they make truth values."""


def make_plain(program: ExportedProgram) -> bool:
    """Write the program in operators that are in the table or can be written out in others, none of which changes anything; whether
    that could be done.

    The program is changed, not what it computes, also where the answer is no: then PyTorch can go on from what is there.
    """
    nodes = list(program.graph.nodes)
    foreign = {node.target for node in nodes if node.op not in ("placeholder", "output") and not _has_row(node)}
    if foreign and not foreign <= {target for target in expandable(program) if not target._schema.is_mutable}:
        return False
    places = {node: place for place, node in enumerate(nodes)}
    plain = True
    for node in nodes:
        if (target := _plain_form(node)) is None:
            continue
        if operator_name(node) in UNCHANGING or _nobody_reads_on(node, places):
            node.target = target
        else:
            plain = False
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return plain


def _has_row(node: fx.Node) -> bool:
    """Whether the walk can take a node as it is, or once it is plain."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", "") == "getitem"
    if node.target.namespace != "aten" or _trains(node):
        return False
    known = operator_name(node) in ATEN or not node.all_input_nodes  # what reads nothing is computed beforehand
    return _plain_form(node) is not None or (known and not node.target._schema.is_mutable)


def _trains(node: fx.Node) -> bool:
    """Whether a layer that has a mode for training is in it."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)} | node.kwargs
    return any(given.get(name) not in (None, False) for name in ("training", "train", "use_input_stats"))


def _plain_form(node: fx.Node) -> torch._ops.OpOverload | None:
    """What an operator that writes in place is called when it does not, if it only computes element by element, from the same
    arguments, and makes numbers of the type that was there."""
    name = operator_name(node)
    base, _, overload = name.partition(".")
    plain = f"{base.removesuffix('_')}.{overload}"
    if not base.endswith("_") or (plain not in ELEMENTWISE and name not in UNCHANGING) or base in COMPARING:
        return None
    found: torch._ops.OpOverload = getattr(getattr(torch.ops.aten, base.removesuffix("_")), overload)
    return found if _arguments(found) == _arguments(node.target) and _of_one_type(node) else None  # pow.Scalar is not pow_.Scalar


def _arguments(operator: object) -> list[str]:
    return [str(argument.type) for argument in operator._schema.arguments]  # type: ignore[attr-defined]


def _of_one_type(node: fx.Node) -> bool:
    """Whether all that an operator reads has the type of what it writes over."""
    values = [operand.meta.get("val") for operand in node.all_input_nodes]
    return len({value.dtype for value in values if isinstance(value, torch.Tensor)}) == 1


def _nobody_reads_on(node: fx.Node, places: dict[fx.Node, int]) -> bool:
    """Whether what ``node`` writes over was made for it, and whoever else read it did so before and kept none of its memory."""
    written = node.args[0]
    return (isinstance(written, fx.Node) and operator_name(written) in NEW_MEMORY
            and all(places[reader] < places[node] and operator_name(reader) in NEW_MEMORY
                    for reader in written.users if reader is not node))
