"""Sums and means over dimensions: global average pooling above all."""

from __future__ import annotations

from zellige.cpu.calls import External
from zellige.cpu.kernels.reduce import ReduceKernel
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.reduce import reduce_work
from zellige.graph.ir import Node


def lower_reduction(lowering: Lowering, node: Node) -> None:
    source, target = lowering.storage[node.inputs[0]], lowering.storage[node.name]
    first = len(lowering.plan.calls)
    lanes, work = reduce_work(source.layout, target.layout, node.attributes["dimensions"],  # type: ignore[arg-type]
                              node.op == "mean", lowering.isa.lanes)
    kernel = ReduceKernel(lanes, isinstance(source.place, External), lowering.epilogue(node))
    lowering.call(node, kernel, {"source": source.place, "target": target.place, **work.tables}, work.costs)
    lowering.layer(node, "reduce", f"lanes run over a {lanes} dimension", first_call=first)
