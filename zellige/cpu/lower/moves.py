"""What only moves numbers: slices, concatenations, shuffles, padding, the network's inputs and outputs.

Most of them move nothing: the value lies where it must already (see ``storage.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from zellige.cpu.calls import Call, External, Place, Stored
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.layout import Dense, Layout, Planes
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.relayout import concat_work, copy_work, reshape_work, shuffle_work, slice_work, transpose_work
from zellige.cpu.tables.windows import pad_work
from zellige.cpu.tables.work import Work
from zellige.graph.ir import Node

MOVES: dict[str, Callable[[Node, Layout, Layout, int], Work]] = {
    "slice": lambda node, source, target, lanes: slice_work(
        source, target, node.attributes["dimension"], node.attributes["start"], node.attributes["step"], lanes),  # type: ignore[arg-type]
    "reshape": lambda node, source, target, lanes: reshape_work(source, target, lanes),
    "transpose": lambda node, source, target, lanes: transpose_work(source, target, node.attributes["order"], lanes),  # type: ignore[arg-type]
    "channel_shuffle": lambda node, source, target, lanes: shuffle_work(source, target, node.attributes["groups"], lanes),  # type: ignore[arg-type]
    "pad": lambda node, source, target, lanes: pad_work(
        source, target, node.attributes["padding"], node.attributes["mode"], node.attributes["value"], lanes),  # type: ignore[arg-type]
}


def append_copy(lowering: Lowering, node: Node, source: Stored, target: Stored, work: Work, barrier: bool = True) -> None:
    lowering.call(node, CopyKernel(), {"source": source.place, "target": target.place, **work.tables}, work.costs, barrier)


def lower_move(lowering: Lowering, node: Node) -> None:
    """An operator of ``MOVES``: a view where the value lies inside of its source, else a copy."""
    source, target = source_of(lowering, node.inputs[0]), lowering.storage[node.name]
    first = len(lowering.plan.calls)
    if node.name in lowering.storage.views:
        lowering.layer(node, "view", "lies in its source", first_call=first)
        return
    append_copy(lowering, node, source, target, MOVES[node.op](node, source.layout, target.layout, lowering.isa.lanes))
    lowering.layer(node, "copy", "its elements lie in another order than the source's", first_call=first)


def lower_concat(lowering: Lowering, node: Node) -> None:
    """In place where a part was written into the whole; the others are copied."""
    first = len(lowering.plan.calls)
    whole, dimension, position, copied = lowering.storage[node.name], int(node.attributes["dimension"]), 0, 0  # type: ignore[arg-type]
    for part in node.inputs:
        source = source_of(lowering, part)
        if not (part not in lowering.graph.constants and isinstance(whole.layout, Planes) and dimension == 1
                and lowering.storage.is_part(part, node.name, position * whole.layout.strides[1])):
            # Parts beside one another in a row clear what is right of them, so they take turns.
            work = concat_work(source.layout, whole.layout, dimension, position, lowering.isa.lanes)
            append_copy(lowering, node, source, whole, work)
            copied += 1
        position += lowering.graph.type_of(part).shape[dimension]
    reason = f"{copied} of {len(node.inputs)} parts copied, the others written in place" if copied else "all parts written in place"
    lowering.layer(node, "copy" if copied else "view", reason, first_call=first)


def source_of(lowering: Lowering, name: str) -> Stored:
    """Where what is moved lies: a value in the arena or the caller's memory, a constant in a table of its own."""
    if name in lowering.graph.constants:
        return Stored(lowering.constant(name), Dense(lowering.graph.type_of(name).shape))
    return lowering.storage[name]


def to_dense(lowering: Lowering, node: Node, name: str, stored: Stored | None = None) -> Stored:
    """A value (or what is ``stored`` for it) in row-major order in the arena: itself, or a copy made for a node."""
    stored = stored or lowering.storage[name]
    if isinstance(stored.layout, Dense) and isinstance(stored.place, Place):
        return stored
    dense = lowering.storage.reserve(f"{node.name} reads {name}", Dense(stored.layout.shape))
    append_copy(lowering, node, stored, dense, copy_work(stored.layout, dense.layout, lowering.isa.lanes))
    return dense


def lower_inputs(lowering: Lowering) -> None:
    """Bring the caller's arrays into the arena, where a reader needs them there. A staged convolution reads them as they are."""
    for name in lowering.graph.inputs:
        external, stored = lowering.storage.external(name), lowering.storage[name]
        if stored.place != external.place:
            work = copy_work(external.layout, stored.layout, lowering.isa.lanes)
            lowering.plan.calls.append(Call(CopyKernel(), {"source": external.place, "target": stored.place, **work.tables},
                                            work.costs.astype(int), name))


def lower_outputs(lowering: Lowering) -> None:
    """Copy the results out, all at once."""
    outputs = lowering.graph.outputs
    for index, name in enumerate(outputs):
        source = lowering.storage[name]
        target = Dense(lowering.graph.type_of(name).shape)
        work = copy_work(source.layout, target, lowering.isa.lanes)
        lowering.plan.calls.append(Call(CopyKernel(), {"source": source.place, "target": External("output", index), **work.tables},
                                        work.costs.astype(int), "outputs", barrier=index == len(outputs) - 1))
