"""Pooling: windows at equal distances, and those that share a map out evenly."""

from __future__ import annotations

from zellige.cpu.kernels.pool import AVERAGE, MAXIMUM, PoolKernel
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.pool import adaptive_work, pool_work
from zellige.cpu.tables.work import Work
from zellige.graph.ir import Node


def lower_pool(lowering: Lowering, node: Node) -> None:
    attributes = node.attributes
    source, target = lowering.storage[node.inputs[0]].layout, lowering.storage[node.name].layout
    additions = [stored.layout for stored in lowering.operands(node)]
    append_pool(lowering, node, *pool_work(
        source, target, attributes["kernel"], attributes["stride"], attributes["padding"],  # type: ignore[arg-type]
        attributes.get("dilation", (1, 1)), attributes.get("count_padding", (0, 0, 0, 0)),  # type: ignore[arg-type]
        int(attributes.get("divisor", 0)), additions, lowering.isa.lanes))  # type: ignore[arg-type]


def lower_adaptive_pool(lowering: Lowering, node: Node) -> None:
    source, target = lowering.storage[node.inputs[0]].layout, lowering.storage[node.name].layout
    additions = [stored.layout for stored in lowering.operands(node)]
    append_pool(lowering, node, *adaptive_work(source, target, additions, lowering.isa.lanes))


def append_pool(lowering: Lowering, node: Node, step: int, work: Work) -> None:
    first = len(lowering.plan.calls)
    kernel = PoolKernel(MAXIMUM if "max" in node.op else AVERAGE, step, lowering.epilogue(node))
    operands = {f"operand{number}": stored.place for number, stored in enumerate(lowering.operands(node))}
    lowering.call(node, kernel, {"source": lowering.place(node.inputs[0]), "target": lowering.place(node.name),
                                 **work.tables, **operands}, work.costs)
    lowering.layer(node, "pool", "lanes run over output pixels", first_call=first)
