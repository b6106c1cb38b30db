"""Winograd's paths of a convolution, by the plans of ``winograd.py``."""

from __future__ import annotations

from functools import partial

from zellige.cpu.calls import Slot
from zellige.cpu.kernels.winograd_points import LARGE, SMALL
from zellige.cpu.layout import Planes
from zellige.cpu.lower.convolution import Convolution
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.lower.pooling import pool_of
from zellige.cpu.lower.winograd import WinogradPlan
from zellige.cpu.storage import is_direct
from zellige.graph.ir import Node


def winograd_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """3 × 3 filters at stride 1 with large tiles and, where those are few, with small ones; a column goes if all of its nine taps
    are zero."""
    node = convolution.node
    if not (lowering.options.winograd and is_direct(lowering.graph, node) and convolution.weight.shape[2:] == (3, 3)
            and convolution.dilation == (1, 1) and convolution.groups == 1):
        return []
    pool = pool_of(lowering, node)
    source, target = lowering.planes(node.inputs[0]), lowering.planes(pool or node.name)
    assert isinstance(source.layout, Planes) and isinstance(target.layout, Planes)
    layer = (lowering.isa, convolution.weight, convolution.bias, source.layout, target.layout, convolution.padding,
             lowering.epilogue(node), pool is not None)
    plans = {"winograd": WinogradPlan(*layer, LARGE)}
    if not plans["winograd"].by_strips:
        plans["small winograd"] = WinogradPlan(*layer, SMALL)
    places: dict[str, Slot] = {"source": source.place, "target": target.place, **lowering.operand_slots(node)}
    map_bytes = lowering.map_bytes(node) + 4 * (target.layout.elements - lowering.planes(node.name).layout.elements)
    return [Path(name, f"{plan.transform}, {plan.description}", plan.density, (plan.demand(map_bytes),),
                 partial(append_winograd, lowering, node, plan, places), (pool,) if pool else ())
            for name, plan in plans.items()]


def append_winograd(lowering: Lowering, node: Node, plan: WinogradPlan, places: dict[str, Slot]) -> None:
    call = plan.call
    lowering.call(node, call.kernel, {**call.slots, **places}, call.costs)
