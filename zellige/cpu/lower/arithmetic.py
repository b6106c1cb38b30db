"""Arithmetic between values: sums and products with broadcasting, per-channel scales, activations that could not be fused."""

from __future__ import annotations

import numpy as np

from zellige.cpu.calls import External, Slot
from zellige.cpu.kernels.elementwise import OPERANDS, ElementwiseKernel
from zellige.cpu.kernels.epilogue import Epilogue, activation
from zellige.cpu.layout import Dense, Layout
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.elementwise import elementwise_work
from zellige.graph.ir import Node

PER_CHANNEL = frozenset({"scale_shift", "prelu"})  # their parameters stand along dimension 1


def lower_elementwise(lowering: Lowering, node: Node) -> None:
    """An operator that makes every element from the elements at the same place."""
    operation, epilogue = node.op, lowering.epilogue(node)
    if node.op == "where":
        operation = f"where_{node.attributes['comparison']}"
    if node.op == "activation":
        parameters = {key: value for key, value in node.attributes.items() if key != "function"}
        operation, epilogue = "identity", (activation(str(node.attributes["function"]), parameters), *epilogue)  # type: ignore[arg-type]
    append_elementwise(lowering, node, operation, epilogue)


def append_elementwise(lowering: Lowering, node: Node, operation: str, epilogue: Epilogue) -> None:
    target = lowering.storage[node.name]
    first = len(lowering.plan.calls)
    places = {name: operand(lowering, node, name, number) for number, name in enumerate(node.inputs)}
    operands = [places[name] for name in node.inputs]     # one table of a constant that is read twice
    guarded = [number for number, (slot, _) in enumerate(operands) if isinstance(slot, (External, np.ndarray))]
    additions = lowering.operands(node)
    kinds, work = elementwise_work(target.layout, [layout for _, layout in operands], [each.layout for each in additions],
                                   lowering.isa.lanes, guarded)
    slots: dict[str, Slot] = {"target": target.place, **work.tables}
    slots |= {name: slot for name, (slot, _) in zip(OPERANDS, operands, strict=False)}
    slots |= {f"operand{number}": each.place for number, each in enumerate(additions)}
    lowering.call(node, ElementwiseKernel(operation, kinds, epilogue), slots, work.costs)
    lowering.layer(node, "elementwise", "lanes run over pixels", first_call=first)


def operand(lowering: Lowering, node: Node, name: str, position: int) -> tuple[Slot, Layout]:
    """Where an operand lies: a value in the arena or the caller's memory, or a constant in a table of its own."""
    if name not in lowering.graph.constants:
        stored = lowering.storage[name]
        return stored.place, stored.layout
    array = lowering.constant(name)
    if position and node.op in PER_CHANNEL:
        array = np.broadcast_to(array, (node.type.shape[1],) if array.size == 1 else array.shape)
        array = np.ascontiguousarray(array).reshape(1, -1, *[1] * (len(node.type.shape) - 2))
    return array, Dense(array.shape)
