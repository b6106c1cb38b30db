"""Softmax and its logarithm over one dimension."""

from __future__ import annotations

from zellige.cpu.calls import External
from zellige.cpu.kernels.softmax import SoftmaxKernel
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.softmax import softmax_work
from zellige.graph.ir import Node


def lower_softmax(lowering: Lowering, node: Node) -> None:
    source, target = lowering.storage[node.inputs[0]], lowering.storage[node.name]
    first = len(lowering.plan.calls)
    lanes, work = softmax_work(source.layout, target.layout, int(node.attributes["dimension"]), lowering.isa.lanes)  # type: ignore[arg-type]
    kernel = SoftmaxKernel(lanes, node.op == "log_softmax", isinstance(source.place, External))
    lowering.call(node, kernel, {"source": source.place, "target": target.place, **work.tables}, work.costs)
    lowering.layer(node, "softmax", f"lanes run {lanes} the dimension", first_call=first)
