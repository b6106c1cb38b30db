"""Interpolation: nearest and bilinear."""

from __future__ import annotations

from zellige.cpu.calls import Scratch
from zellige.cpu.kernels.interpolate import InterpolateKernel
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.interpolate import interpolate_work
from zellige.graph.ir import Node


def lower_interpolate(lowering: Lowering, node: Node) -> None:
    first = len(lowering.plan.calls)
    source, target, attributes = lowering.storage[node.inputs[0]], lowering.storage[node.name], node.attributes
    scratch, work = interpolate_work(source.layout, target.layout, str(attributes["mode"]), attributes["scale"],  # type: ignore[arg-type]
                                     bool(attributes["align_corners"]), lowering.isa.lanes)
    lowering.call(node, InterpolateKernel(attributes["mode"] == "bilinear"), {
        "source": source.place, "target": target.place, "scratch": Scratch(scratch), **work.tables}, work.costs)
    lowering.layer(node, "interpolate", str(attributes["mode"]), first_call=first)
