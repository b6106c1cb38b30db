"""Pooling: windows at equal distances, and those that share a map out evenly.

Windows of 2 × 2 pixels side by side need no call of their own where Winograd's kernels make what they read.
"""

from __future__ import annotations

from typing import Any

from zellige.cpu.kernels.pool import AVERAGE, MAXIMUM, PoolKernel, Windows
from zellige.cpu.kernels.winograd_pooling import POOL
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.storage import is_map
from zellige.cpu.tables.pool import adaptive_work, pool_work
from zellige.cpu.tables.work import Work
from zellige.graph.ir import Node


def pool_of(lowering: Lowering, node: Node) -> str | None:
    """The node that alone reads a convolution and keeps the largest of every 2 × 2 pixels: its output transform can do that."""
    graph = lowering.graph
    readers = graph.consumers()[node.name]
    pool = graph.nodes[readers[0]] if len(readers) == 1 else node
    height, width = node.type.shape[2:]
    if (pool.op != "max_pool2d" or pool.epilogue or node.name in graph.outputs or lowering.operands(node) or not is_map(pool.type)
            or pool.type.shape[2:] != (height // POOL, width // POOL)):
        return None
    padding: Any = pool.attributes["padding"]
    windows = (pool.attributes["kernel"], pool.attributes["stride"], pool.attributes["dilation"], padding[::2])
    return pool.name if windows == ((POOL, POOL), (POOL, POOL), (1, 1), (0, 0)) else None


def lower_pool(lowering: Lowering, node: Node) -> None:
    if node.name in lowering.included:
        lowering.layer(node, "pool", f"in the output transform of {node.inputs[0]}", first_call=len(lowering.plan.calls))
        return
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


def append_pool(lowering: Lowering, node: Node, windows: Windows, work: Work) -> None:
    first = len(lowering.plan.calls)
    kernel = PoolKernel(MAXIMUM if "max" in node.op else AVERAGE, windows, lowering.epilogue(node))
    operands = {f"operand{number}": stored.place for number, stored in enumerate(lowering.operands(node))}
    lowering.call(node, kernel, {"source": lowering.place(node.inputs[0]), "target": lowering.place(node.name),
                                 **work.tables, **operands}, work.costs)
    lowering.layer(node, "pool", "lanes run over output pixels", first_call=first)
